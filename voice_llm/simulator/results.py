"""What a run of virtual callers found out: frozen values that check their own order of times."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..events import Timings, ToolCall, Usage
from .percentiles import Percentiles

__all__ = ["CallResult", "RunResult", "TurnResult"]

# Sums of floating-point seconds.
_ROUNDING_S = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResult:
    """One turn, measured at the caller's edge: times count from when the caller stopped speaking.

    Attributes:
        call_id: Whose turn it was.
        turn: Its number in the call, from 0.
        said: What the caller said.
        spoke_s: When the caller began to speak, in seconds on the run's clock; None where that is not known.
        asked_s: When the caller stopped speaking.
        first_token_ms: Until the first text; None where none came.
        first_speech_ms: Until speech could start; None where it could not.
        total_ms: Until the reply, or its failure, was complete.
        gaps: Silences inside the reply, because it came slower than it is spoken.
        gap_s: How long these were together, in seconds.
        heard_until_s: When the caller has heard the reply, as far as it was played.
        text: The reply, as far as it came.
        heard: What of it the caller has heard; all of it, but where the caller broke in.
        stopped_ms: How long the reply went on coming after the caller broke in; None where the caller did not.
        interrupted_ms: The same of the reply before, which the caller broke off with this turn's words.
        tool_calls: What the model asked of tools.
        usage: Token counts, where the target tells.
        timings: Times by the target's own clock, where it tells.
        first_audio_ms: Until the reply's first sound, where the call has sound.
        is_sound: Whether the reply is known as sound only, and so not its words.
        error: What went wrong.

    Raises:
        ValueError: The times are not in order.
    """

    call_id: str
    turn: int
    said: str = ""
    spoke_s: float | None = None
    asked_s: float
    first_token_ms: float | None = None
    first_speech_ms: float | None = None
    total_ms: float
    gaps: int = 0
    gap_s: float = 0.0
    heard_until_s: float | None = None
    text: str = ""
    heard: str | None = None
    stopped_ms: float | None = None
    interrupted_ms: float | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    timings: Timings | None = None
    first_audio_ms: float | None = None
    is_sound: bool = False
    error: str | None = None

    def __post_init__(self) -> None:
        came = self.first_speech_ms is not None or self.text
        if came and self.first_token_ms is None and self.first_audio_ms is None:
            raise ValueError(f"{self.call_id}, turn {self.turn}: speech without a first token")
        times = [0.0, self.first_token_ms, self.first_speech_ms, self.total_ms]
        _check_order((t for t in times if t is not None), f"{self.call_id}, turn {self.turn}")
        if self.gaps < 0 or (self.gaps > 0) != (self.gap_s > 0):
            raise ValueError(f"{self.call_id}, turn {self.turn}: {self.gaps} gaps of {self.gap_s} s")

    @property
    def queue_ms(self) -> float | None:
        """How long the turn waited before anything of it was computed, where the target tells."""
        return self.timings.queue_ms if self.timings else None

    @property
    def first_chunk_ms(self) -> float | None:
        """Until the first speakable text, by the target's clock where it tells; else as ``first_speech_ms``."""
        if self.first_audio_ms is not None:
            return None
        told = self.timings.first_chunk_ms if self.timings else None
        return self.first_speech_ms if told is None else told

    @property
    def unheard_words(self) -> int:
        """Words that were generated and never heard."""
        return 0 if self.heard is None else max(0, len(self.text.split()) - len(self.heard.split()))

    @property
    def ended_s(self) -> float:
        """When the reply was complete, in seconds on the run's clock."""
        return self.asked_s + self.total_ms / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """One call: its turns, and what went wrong outside of them (opening, prefill hints, closing).

    Attributes:
        call_id: Its name.
        script: What the script is called.
        started_s: When it was dialled, in seconds on the run's clock.
        ended_s: When it was over.
        turns: Its turns.
        error: What went wrong outside of them.

    Raises:
        ValueError: The times are not in order, or a turn is another call's.
    """

    call_id: str
    script: str = ""
    started_s: float
    ended_s: float
    turns: tuple[TurnResult, ...] = ()
    error: str | None = None

    def __post_init__(self) -> None:
        if any(turn.call_id != self.call_id for turn in self.turns):
            raise ValueError(f"{self.call_id} has a turn of another call")
        if any(later.turn <= earlier.turn for earlier, later in pairwise(self.turns)):
            raise ValueError(f"{self.call_id} has turns out of order")
        times = [self.started_s, *(t for turn in self.turns for t in (turn.asked_s, turn.ended_s)), self.ended_s]
        _check_order(times, self.call_id, _ROUNDING_S)

    @property
    def errors(self) -> tuple[str, ...]:
        """All that went wrong."""
        return tuple(error for error in (*(turn.error for turn in self.turns), self.error) if error is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """All calls of a run, in the order in which they were begun.

    Attributes:
        concurrent: How many callers were on the phone at once.
        wall_s: How long the run took, in seconds.
        started_s: When it began, on its clock.
        calls: The calls.
    """

    concurrent: int
    wall_s: float
    started_s: float = 0.0
    calls: tuple[CallResult, ...]

    @property
    def turns(self) -> tuple[TurnResult, ...]:
        """All turns, failed ones too."""
        return tuple(turn for call in self.calls for turn in call.turns)

    @property
    def errors(self) -> tuple[str, ...]:
        """All that went wrong."""
        return tuple(error for call in self.calls for error in call.errors)

    @property
    def first_token_ms(self) -> Percentiles | None:
        """Time to the first text, over the turns that did not fail."""
        return Percentiles.of(turn.first_token_ms for turn in self._answered())

    @property
    def first_speech_ms(self) -> Percentiles | None:
        """Time to the first speech, over the turns that did not fail."""
        return Percentiles.of(turn.first_speech_ms for turn in self._answered())

    @property
    def total_ms(self) -> Percentiles | None:
        """Time to the whole reply, over the turns that did not fail."""
        return Percentiles.of(turn.total_ms for turn in self._answered())

    def to_json(self) -> dict[str, Any]:
        """Return it all as ``json.dumps`` takes it: a ``summary``, and under ``calls`` each turn of each call."""
        turns = self.turns
        summary: dict[str, Any] = {
            "calls": len(self.calls),
            "turns": len(turns),
            "errors": len(self.errors),
            "silent_turns": sum(turn.error is None and not turn.text.strip() for turn in turns),
            "turns_with_gaps": sum(turn.gaps > 0 for turn in turns),
            "gap_s": sum(turn.gap_s for turn in turns),
            "usage": dataclasses.asdict(sum((turn.usage for turn in turns if turn.usage), Usage())),
        }
        for name in ("first_token_ms", "first_speech_ms", "total_ms"):
            figures: Percentiles | None = getattr(self, name)
            summary[name] = dataclasses.asdict(figures) if figures else None
        return {
            "concurrent": self.concurrent,
            "wall_s": self.wall_s,
            "summary": summary,
            "calls": [dataclasses.asdict(call) for call in self.calls],
        }

    def _answered(self) -> Iterator[TurnResult]:
        return (turn for turn in self.turns if turn.error is None)


def _check_order(times: Iterable[float], where: str, rounding: float = 0.0) -> None:
    for earlier, later in pairwise(times):
        if not later >= earlier - rounding:
            raise ValueError(f"{where}: times out of order, {later} after {earlier}")
