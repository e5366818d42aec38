"""Metrics of a run: one table of what is measured, for objectives, reports and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from .expectations import Outcome
from .judged import JudgedRun
from .percentiles import percentile
from .results import TurnResult

__all__ = ["SHARES", "TIMES", "Share", "Time", "share_of", "values_of"]


@dataclass(frozen=True, slots=True)
class Time:
    """A time of each turn.

    Attributes:
        title: What it is, in words.
        of: From a turn to milliseconds; None where there is none.
    """

    title: str
    of: Callable[[TurnResult], float | None]


@dataclass(frozen=True, slots=True)
class Share:
    """A share of a run, 0 to 1.

    Attributes:
        title: What of what.
        of: From a run to the share; None where there is nothing to take a share of.
        better: Whether it should be low or high.
    """

    title: str
    of: Callable[[JudgedRun], float | None]
    better: Literal["low", "high"] = "low"


TIMES: Final[Mapping[str, Time]] = {
    "queue": Time("waited in the queue", lambda turn: turn.queue_ms),
    "first_token": Time("first token", lambda turn: turn.first_token_ms),
    "first_chunk": Time("first chunk", lambda turn: turn.first_chunk_ms),
    "first_speech": Time("first speech", lambda turn: turn.first_speech_ms),
    "first_audio": Time("first audio", lambda turn: turn.first_audio_ms),
    "total": Time("whole reply", lambda turn: turn.total_ms if turn.text and turn.stopped_ms is None else None),
    "gap": Time("silence inside a reply", lambda turn: turn.gap_s * 1e3 if turn.text else None),
    "stop": Time("stopped after a barge-in", lambda turn: turn.stopped_ms),
}


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _replies(run: JudgedRun) -> list[TurnResult]:
    return [turn for turn in run.run.turns if turn.error is None and turn.text]


def _gaps(run: JudgedRun) -> float | None:
    replies = _replies(run)
    return _ratio(sum(turn.gaps > 0 for turn in replies), len(replies))


def _errors(run: JudgedRun) -> float | None:
    return _ratio(sum(bool(call.errors) for call in run.run.calls), len(run.run.calls))


def _expectations(run: JudgedRun) -> float | None:
    passed, failed = (run.count(outcome, gates=True) for outcome in (Outcome.PASSED, Outcome.FAILED))
    return _ratio(passed, passed + failed)


def _cached(run: JudgedRun) -> float | None:
    usages = [turn.usage for turn in run.run.turns if turn.usage]
    return _ratio(sum(u.cached_tokens for u in usages), sum(u.prompt_tokens for u in usages))


def _unheard(run: JudgedRun) -> float | None:
    replies = _replies(run)
    return _ratio(sum(turn.unheard_words for turn in replies), sum(len(turn.text.split()) for turn in replies))


SHARES: Final[Mapping[str, Share]] = {
    "gaps": Share("replies with a silence inside", _gaps),
    "errors": Share("calls in which something failed", _errors),
    "expectations": Share("expectations met that count", _expectations, "high"),
    "cached": Share("prompt tokens from the cache", _cached, "high"),
    "unheard": Share("words generated but never heard", _unheard),
}


def values_of(run: JudgedRun, name: str) -> list[float]:
    """Return a time of each turn that did not fail and has it, in milliseconds."""
    return [ms for turn in run.run.turns if turn.error is None and (ms := TIMES[name].of(turn)) is not None]


def share_of(run: JudgedRun, name: str) -> float | None:
    """Return a share."""
    return SHARES[name].of(run)


def at_percentile(run: JudgedRun, name: str, percent: float) -> float | None:
    """Return a time's percentile over the turns, in milliseconds; None where no turn has it."""
    values = values_of(run, name)
    return percentile(values, percent) if values else None
