"""What a turn and a call tell their reader: frozen values, the same for every transport."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = [
    "FinishReason",
    "Finished",
    "GenerateEvent",
    "Prefilled",
    "SentenceChunk",
    "TextDelta",
    "Thought",
    "Timings",
    "ToolCall",
    "Usage",
]


class FinishReason(StrEnum):
    """Why a reply ended."""

    STOP = "stop"
    """The model ended its turn, or a stop string matched."""
    LENGTH = "length"
    """``max_tokens`` was reached."""
    TOOL_CALLS = "tool_calls"
    """The model asked for tools."""
    CANCELLED = "cancelled"
    """The reader went away or cancelled."""
    INTERRUPTED = "interrupted"
    """The caller spoke over the reply, or a newer turn replaced it."""
    ERROR = "error"
    """The turn failed; an exception says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one turn, or sums over a call.

    ``prompt_tokens - cached_tokens`` is what the backend really decoded of the prompt.
    ``completion_tokens`` counts sampled tokens, the end-of-turn token included.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds since the request reached our edge, queue time included.

    ``queue_ms`` ends when the first piece of work for the request starts, ``prefill_ms`` is the time between that and
    the first sampled token. A value is None where the turn ended before.
    """

    queue_ms: float | None = None
    prefill_ms: float | None = None
    first_token_ms: float | None = None
    first_chunk_ms: float | None = None
    total_ms: float | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text of the reply: whole characters, stop strings and unspeakable markup already taken out."""

    text: str


@dataclass(frozen=True, slots=True)
class SentenceChunk:
    """A piece of the reply that a voice can speak at once; the chunks joined are the deltas joined."""

    index: int
    text: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning text (``<think>``), never part of the speech."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool; comes after the words of a reply, once the reply is whole.

    Attributes:
        tool_call_id: Names this call, for the message that brings its result.
        name: One of the tools that were given.
        arguments: Match the tool's schema.
    """

    tool_call_id: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a turn."""

    reason: FinishReason
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True)
class Prefilled:
    """A prefill has ended.

    ``complete`` is False where newer work of the same call took its place before the whole prompt was in the cache.
    """

    usage: Usage
    prefill_ms: float
    complete: bool = True


GenerateEvent = TextDelta | SentenceChunk | Thought | ToolCall | Finished
"""What ``Call.generate`` yields."""
