"""What a call session tells its transport: the call contract's server events, and their JSON form."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from ..events import FinishReason, Timings, Usage

__all__ = ["CallError", "CallThought", "CallToolCall", "Chunk", "Ended", "Ready", "SessionEvent", "TurnEnd", "to_json"]


@dataclass(frozen=True, slots=True)
class Ready:
    """The call is admitted and its opening prompt is in the cache.

    ``resume_token`` lets a dropped connection take the call up again; None where the transport cannot drop.
    """

    call_id: str
    usage: Usage
    prefill_ms: float
    resume_token: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Speakable text of a turn; ``final`` marks the last piece of a whole reply."""

    turn_id: str
    index: int
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class CallThought:
    """Reasoning of a turn, never spoken."""

    turn_id: str
    text: str


@dataclass(frozen=True, slots=True)
class CallToolCall:
    """A turn asks for a tool; it goes on when the results of all of them are in."""

    turn_id: str
    tool_call_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """A turn is over."""

    turn_id: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True)
class CallError:
    """Something was refused or failed; the call goes on unless ``fatal``."""

    code: str
    message: str
    retry_after_s: float | None = None
    fatal: bool = False
    turn_id: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is over; nothing follows."""

    reason: str
    turns: int
    usage: Usage = field(default_factory=Usage)
    duration_s: float = 0.0


SessionEvent = Ready | Chunk | CallThought | CallToolCall | TurnEnd | CallError | Ended

_TYPES: Final = {CallError: "error", CallThought: "thought", CallToolCall: "tool_call"}


def to_json(event: SessionEvent) -> dict[str, Any]:
    """Return the event as a JSON object: ``type`` names it, and what is unknown is left out."""
    name = _TYPES.get(type(event)) or re.sub(r"(?<=.)([A-Z])", r"_\1", type(event).__name__).lower()
    return {"type": name} | _plain(event)


def _plain(event: SessionEvent | Usage | Timings) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for field_ in dataclasses.fields(event):
        value = getattr(event, field_.name)
        if isinstance(value, (Usage, Timings)):
            plain[field_.name] = _plain(value)
        elif isinstance(value, Enum):
            plain[field_.name] = value.value
        elif isinstance(value, float):
            plain[field_.name] = round(value, 3)
        elif value is not None:
            plain[field_.name] = value  # a tool call's arguments among them, as they are
    return plain
