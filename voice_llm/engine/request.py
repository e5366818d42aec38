"""Request and LiveCall: the two things the batcher works on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from ..backend.base import Sampler, SavedState
from ..errors import EngineError
from ..events import FinishReason, Timings, Usage
from ..text import ParsedCall, TextPipeline
from .pool import KVSequence
from .prefix import IsolationKey
from .speech import Speech

__all__ = ["LiveCall", "Request", "RequestKind", "RequestState", "TurnWork"]


class RequestKind(Enum):
    """What a request wants."""

    TURN = "turn"
    """A reply."""
    PREFILL = "prefill"
    """Only the prompt in the cache, in whatever room is left: an opening prompt, a hint of what is being said."""


class RequestState(Enum):
    """Where a request stands; moves only along ``_MOVES``."""

    QUEUED = "queued"
    PREFILLING = "prefilling"
    TALKING = "talking"
    DONE = "done"


_MOVES: Final = {
    RequestState.QUEUED: {RequestState.PREFILLING, RequestState.DONE},
    RequestState.PREFILLING: {RequestState.TALKING, RequestState.DONE},
    RequestState.TALKING: {RequestState.DONE},
    RequestState.DONE: set[RequestState](),
}


@dataclass(slots=True, eq=False)
class LiveCall:
    """A call as the core sees it.

    Attributes:
        call_id: The transport's name for it.
        key: Whose KV it may share.
        sequence: The KV sequence that it holds; None before its first request and while it is parked.
        parked: Its KV in host memory, with the tokens that it stands for.
        request: What runs for it now; at most one.
        last_active_s: When a request of it last ended.
        seeded: Whether its opening prompt has been offered to the prefix store.
        one_shot: Whether it is an inference beside the calls, and not one of them.
        soft: Whether nobody says when it ends: it counts as a call only while a turn of it runs.
        closed: Set once, when the call ends.
    """

    call_id: str
    key: IsolationKey
    sequence: KVSequence | None = None
    parked: tuple[SavedState, list[int]] | None = None
    request: Request | None = None
    last_active_s: float = 0.0
    seeded: bool = False
    one_shot: bool = False
    soft: bool = False
    closed: bool = False

    @property
    def occupies(self) -> bool:
        """Whether it counts against the calls that may be open."""
        return not self.one_shot and (not self.soft or self.in_turn)

    @property
    def in_turn(self) -> bool:
        """Whether a reply is being made for it."""
        return self.request is not None and self.request.kind is RequestKind.TURN


@dataclass(slots=True, eq=False)
class TurnWork:
    """What a turn needs beyond its prompt, and what it has produced so far.

    Attributes:
        sampler: Draws the tokens; closed when the turn ends.
        text: Turns token bytes into text and chunks.
        max_tokens: Longest reply.
        speech: What the caller still has to hear of it; None where nobody listens at speaking rate (no pacing).
        generated: Tokens drawn so far, the end-of-turn token included.
        visible_chars: For each of them but the end-of-turn token, how many visible characters of text had been emitted
            once it was processed; appended last, so that another thread may read as many of ``generated``.
        emitted: The text emitted so far, in pieces.
        chunks: How many sentence chunks have been emitted.
        chunked_tokens: How many tokens had been drawn when the latest of them was complete.
        last_token_s: When the latest token was drawn.
        calls: The tool calls that it ended with.
        complete: Whether the whole reply was said: ended by the model or by its length, not cut.
    """

    sampler: Sampler
    text: TextPipeline
    max_tokens: int
    speech: Speech | None = None
    generated: list[int] = field(default_factory=list)
    visible_chars: list[int] = field(default_factory=list)
    emitted: list[str] = field(default_factory=list)
    chunks: int = 0
    chunked_tokens: int = 0
    last_token_s: float = 0.0
    calls: tuple[ParsedCall, ...] = ()
    complete: bool = False


@dataclass(slots=True, eq=False)
class Request:
    """One turn or prefill of a call, from its arrival to its end.

    Attributes:
        call: Whose it is.
        kind: Turn or prefill.
        prompt: The whole prompt, as tokens.
        arrival_s: When it reached our edge, on the engine's clock.
        turn: Sampling and text, for turns.
        cached_tokens: Prompt tokens that were in the cache when work began.
        computed_tokens: Prompt tokens in the cache now.
        started_s: When the first work for it began.
        first_token_s: When its first token was drawn.
        first_chunk_s: When its first sentence chunk was complete.
        finish_reason: Set once, at the end.
    """

    call: LiveCall
    kind: RequestKind
    prompt: list[int]
    arrival_s: float
    turn: TurnWork | None = None
    state: RequestState = RequestState.QUEUED
    cached_tokens: int = 0
    computed_tokens: int = 0
    started_s: float | None = None
    first_token_s: float | None = None
    first_chunk_s: float | None = None
    finish_reason: FinishReason | None = None

    def __repr__(self) -> str:
        prompt = f"prompt: {self.computed_tokens}/{len(self.prompt)}"
        return f"<Request {self.call.call_id} {self.kind.value} [{self.state.value} | {prompt}]>"

    @property
    def remaining_tokens(self) -> int:
        """Prompt tokens still to be decoded."""
        return len(self.prompt) - self.computed_tokens

    @property
    def sequence(self) -> KVSequence:
        """The call's KV sequence.

        Raises:
            EngineError: It has none (the request has not been started).
        """
        if self.call.sequence is None:
            raise EngineError(f"{self!r} has no sequence")
        return self.call.sequence

    @property
    def work(self) -> TurnWork:
        """The turn's sampling and text.

        Raises:
            EngineError: This is a prefill.
        """
        if self.turn is None:
            raise EngineError(f"{self!r} is not a turn")
        return self.turn

    def move(self, state: RequestState) -> None:
        """Change the state; the only place where that happens.

        Raises:
            EngineError: The move is not legal.
        """
        if state not in _MOVES[self.state]:
            raise EngineError(f"{self!r} cannot become {state.value}")
        self.state = state

    def usage(self) -> Usage:
        """Return the token counts so far; of a prompt that was not finished, what was computed."""
        return Usage(self.computed_tokens, self.cached_tokens, len(self.turn.generated) if self.turn else 0)

    def timings(self, now_s: float) -> Timings:
        """Return the times since arrival, in milliseconds."""

        def since(start: float | None, end: float | None) -> float | None:
            return None if start is None or end is None else (end - start) * 1e3

        return Timings(
            queue_ms=since(self.arrival_s, self.started_s),
            prefill_ms=since(self.started_s, self.first_token_s),
            first_token_ms=since(self.arrival_s, self.first_token_s),
            first_chunk_ms=since(self.arrival_s, self.first_chunk_s),
            total_ms=since(self.arrival_s, now_s),
        )
