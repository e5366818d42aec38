"""What the other side of a call tells it: the call contract's client events."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...config import SamplingParams
from ...errors import InvalidRequestError, NotFoundError
from ...prompt import Message, Tool

__all__ = [
    "ClientEvent",
    "Confirm",
    "Context",
    "End",
    "Interrupt",
    "Params",
    "Partial",
    "Played",
    "Start",
    "ToolResult",
    "Turn",
    "Withdraw",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """How replies are drawn, as far as the other side says; None leaves the profile's choice."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    grammar: str | None = None
    json_schema: Mapping[str, Any] | None = None
    tool_choice: str | None = None
    reasoning_effort: str | None = None
    pacing: str | None = None
    lora_adapter_id: str | None = None
    first_chunk: str | None = None

    def apply(self, sampling: SamplingParams) -> SamplingParams:
        """Return ``sampling`` with what is said here in its place.

        ``tool_choice`` is no part of it. A grammar takes the place of a schema, and the other way round.

        Raises:
            InvalidRequestError: A value is out of range, or one is given that has no effect.
            NotFoundError: An adapter is asked for, and there are none.
        """
        if self.reasoning_effort is not None:
            raise InvalidRequestError("reasoning_effort is not supported", param="reasoning_effort")
        if self.lora_adapter_id:
            raise NotFoundError(f"there is no adapter {self.lora_adapter_id!r}")
        if self.grammar is not None or self.json_schema is not None:
            sampling = dataclasses.replace(sampling, grammar=None, json_schema=None)
        return sampling.replace(**{name: getattr(self, name) for name in _SAMPLING}, stop=self.stop or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Opens the call, or takes a dropped one up again.

    Attributes:
        language: Code of what is spoken, as BCP 47 has it; empty for the profile's.
        resume_token: What ``ready`` gave; empty for a new call.
        last_turn_id: Turn of the last chunk that was received; empty where none was.
        last_index: Index of that chunk.
    """

    call_id: str = ""
    profile: str = ""
    system_prompt: str = ""
    rag_context: str = ""
    history: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    params: Params = field(default_factory=Params)
    language: str = ""
    resume_token: str = ""
    last_turn_id: str = ""
    last_index: int = 0


@dataclass(frozen=True, slots=True)
class Partial:
    """The turn being spoken, so far: may be prefilled, is never answered."""

    text: str


@dataclass(frozen=True, slots=True)
class Turn:
    """The caller has spoken. A speculative turn is computed, and kept back until it is confirmed."""

    turn_id: str
    text: str
    rag_context: str | None = None
    speculative: bool = False
    params: Params | None = None


@dataclass(frozen=True, slots=True)
class Confirm:
    """A speculative turn holds."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """A speculative turn does not hold: the caller went on speaking."""

    turn_id: str


@dataclass(frozen=True, slots=True)
class Played:
    """The caller has heard chunk ``index`` for ``played_ms``, and all before it."""

    turn_id: str
    index: int
    played_ms: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The caller spoke over the reply. Without a text, the last ``Played`` says what was heard."""

    spoken_text: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """Retrieved text for the whole call, from the next turn on."""

    rag_context: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool returned; any JSON value."""

    tool_call_id: str
    result: Any = None


@dataclass(frozen=True, slots=True)
class End:
    """The call is over."""

    reason: str = ""


_SAMPLING = frozenset(f.name for f in dataclasses.fields(SamplingParams)) - {"stop"}

ClientEvent = Start | Partial | Turn | Confirm | Withdraw | Played | Interrupt | Context | ToolResult | End
"""What a transport hands to a call."""
