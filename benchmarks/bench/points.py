"""What was measured: points, and the rounds of a system under so many calls taken together."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

from voice_llm.simulator import percentile

from .interval import interval

__all__ = ["Point", "Pooled", "by_system", "pool"]

_TURNS_A_CALL: Final = 6
_SMOOTH_SHARE: Final = 0.99
_CLEARLY_BROKEN_SHARE: Final = 0.1
# Later than any bound, and still a number to interpolate with.
_NEVER_MS: Final = sys.float_info.max

Column = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One system under so many calls in one round. Turns that the callers asked for within the window count.

    Attributes:
        system: Its name.
        calls: Callers on the phone at once.
        round: Of the run, from 0.
        date: When it was measured.
        window_s: How long that was.
        turns: How many turns were asked for.
        first_token_ms: From the end of a turn to the first text, at the client; of turns that were answered with text.
        first_speech_ms: To the first speech, likewise.
        gap_s: Silence within each reply, of turns that were answered.
        clause_ms: To the first clause, by the server's own timing where it tells, and what the turn took outside of it.
        server_first_token_ms: To the first token, likewise.
        errors: What went wrong, by its code.
        prompt_tokens: Tokens of the turns' prompts.
        cached_tokens: Those that were not computed for the turn.
        completion_tokens: Tokens of the replies.
        computed_tokens: Prompt tokens that the server computed in the window, also ahead of turns; None if untold.
        cpu_s: CPU time of the server's processes in the window.
        commit: Of the code that was measured, ``-dirty`` where it had changes; None where that is not known.
    """

    system: str
    calls: int
    round: int
    date: str
    window_s: float
    turns: int
    first_token_ms: Column
    first_speech_ms: Column
    gap_s: Column
    clause_ms: Column = ()
    server_first_token_ms: Column = ()
    errors: dict[str, int]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    computed_tokens: float | None
    cpu_s: float
    commit: str | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Return what ``dataclasses.asdict`` has written."""
        fields: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in data.items()}
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Pooled:
    """The rounds of one system and number of calls, taken together."""

    points: tuple[Point, ...]

    @property
    def system(self) -> str:
        """Its name."""
        return self.points[0].system

    @property
    def calls(self) -> int:
        """Callers on the phone at once."""
        return self.points[0].calls

    @property
    def turns(self) -> int:
        """Turns that were asked for."""
        return sum(point.turns for point in self.points)

    @property
    def errors(self) -> int:
        """What went wrong."""
        return sum(sum(point.errors.values()) for point in self.points)

    @property
    def gap_share(self) -> float:
        """Share of the answered turns with a silence in the reply."""
        gaps = self._column("gap_s")
        return sum(gap > 0 for gap in gaps) / len(gaps) if gaps else 0.0

    def ms(self, column: str, percent: float) -> float | None:
        """Return a percentile of a column of ``Point``; None where it is empty."""
        values = self._column(column)
        return percentile(values, percent) if values else None

    @property
    def speech_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the p95 of first speech, in ms; None where nobody spoke."""
        return interval(self._column("first_speech_ms"), 95)

    @property
    def is_smooth(self) -> bool:
        """Whether at most 1 % of the turns have a gap or fail."""
        gaps = sum(gap > 0 for gap in self._column("gap_s"))
        return gaps + self._failed <= (1 - _SMOOTH_SHARE + 1e-9) * self.turns

    @property
    def _failed(self) -> int:
        """What went wrong, and turns whose reply had nothing to say."""
        return max(self.errors, self.turns - len(self._column("first_speech_ms")))

    def meets(self, bound_ms: float) -> bool:
        """Whether replies are smooth, and the p95 of first speech is in the bound, where what failed counts as late."""
        spoken = self._column("first_speech_ms")
        late = [_NEVER_MS] * self._failed
        return bool(spoken) and self.is_smooth and percentile([*spoken, *late], 95) <= bound_ms

    def misses_clearly(self, stop_ms: float) -> bool:
        """Whether more calls would be a waste of time: speech is later than this bound, or many replies are broken."""
        speech_ms = self.ms("first_speech_ms", 95)
        broken = self.gap_share > _CLEARLY_BROKEN_SHARE or self.errors > _CLEARLY_BROKEN_SHARE * self.turns
        return speech_ms is None or speech_ms > stop_ms or broken

    def summary(self) -> dict[str, Any]:
        """Return the figures of the tables."""
        window_s = sum(point.window_s for point in self.points)
        gaps = self._column("gap_s")
        computed = [point.computed_tokens for point in self.points]
        told = [tokens for tokens in computed if tokens is not None]
        errors: Counter[str] = sum((Counter(point.errors) for point in self.points), Counter())
        return {
            "system": self.system,
            "calls": self.calls,
            "rounds": len(self.points),
            "turns": self.turns,
            **{
                f"{name}_p{percent}": _rounded(self.ms(name, percent))
                for name in ("first_token_ms", "first_speech_ms", "clause_ms", "server_first_token_ms")
                for percent in (50, 95, 99)
            },
            "first_speech_ms_p95_by_round": [_rounded(Pooled((p,)).ms("first_speech_ms", 95)) for p in self.points],
            "first_speech_ms_p95_interval": self.speech_interval,
            "gap_share": round(self.gap_share, 4),
            "gap_s": round(sum(gaps), 2),
            "tokens_per_s": round(sum(p.completion_tokens for p in self.points) / window_s, 1),
            "prompt_tokens": sum(p.prompt_tokens for p in self.points),
            "reused_tokens": sum(p.cached_tokens for p in self.points),
            "computed_in_turns": sum(p.prompt_tokens - p.cached_tokens for p in self.points),
            "computed_tokens": round(sum(told)) if len(told) == len(computed) else None,
            "cpu_s_a_call": round(sum(p.cpu_s for p in self.points) / max(1, self.turns) * _TURNS_A_CALL, 3),
            "errors": dict(errors),
        }

    def _column(self, name: str) -> list[float]:
        return [value for point in self.points for value in getattr(point, name)]


def pool(points: Iterable[Point]) -> list[Pooled]:
    """Take the rounds of each system and number of calls together, in the order of the points and of the calls."""
    groups: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        groups.setdefault((point.system, point.calls), []).append(point)
    systems = list(dict.fromkeys(system for system, _ in groups))
    ordered = sorted(groups, key=lambda key: (systems.index(key[0]), key[1]))
    return [Pooled(tuple(sorted(groups[key], key=lambda point: point.round))) for key in ordered]


def by_system(points: Iterable[Point], order: Iterable[str] = ()) -> dict[str, list[Pooled]]:
    """Return the pooled points of each system, by calls; systems in this order, and then in that of their points."""
    found: dict[str, list[Pooled]] = {}
    for pooled in pool(points):
        found.setdefault(pooled.system, []).append(pooled)
    first = [name for name in order if name in found]
    return {name: found[name] for name in dict.fromkeys((*first, *found))}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
