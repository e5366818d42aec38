"""What a run found: points, pooled over the rounds, and how many calls each system holds."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from voice_llm.simulator import percentile

__all__ = ["BOUNDS_MS", "Capacity", "Point", "Pooled", "by_system", "capacity", "pool", "read", "write"]

BOUNDS_MS: Final = (500.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0)
"""First-speech p95 for which the largest number of calls is told: machines differ, and so do callers."""

_TURNS_A_CALL: Final = 6
_SMOOTH_SHARE: Final = 0.99
_CLEARLY: Final = 2.0
_CLEARLY_BROKEN_SHARE: Final = 0.1

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
        clause_ms: To the first clause, on the server's clock, where it tells.
        server_first_token_ms: To the first token, likewise.
        errors: What went wrong, by its code.
        prompt_tokens: Tokens of the turns' prompts.
        cached_tokens: Those that were not computed for the turn.
        completion_tokens: Tokens of the replies.
        computed_tokens: Prompt tokens that the server computed in the window, also ahead of turns; None if untold.
        cpu_s: CPU time of the server's processes in the window.
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

    def meets(self, bound_ms: float) -> bool:
        """Whether speech starts in time and does not break off: p95 in the bound, no gap and no error in 99 %."""
        speech_ms = self.ms("first_speech_ms", 95)
        few = 1 - _SMOOTH_SHARE + 1e-9
        return (
            speech_ms is not None
            and speech_ms <= bound_ms
            and self.gap_share <= few
            and self.errors <= few * self.turns
        )

    def misses_clearly(self, objective_ms: float) -> bool:
        """Whether more calls would be a waste of time: far from the objective, or broken replies in many turns."""
        speech_ms = self.ms("first_speech_ms", 95)
        broken = self.gap_share > _CLEARLY_BROKEN_SHARE or self.errors > _CLEARLY_BROKEN_SHARE * self.turns
        return speech_ms is None or speech_ms > _CLEARLY * objective_ms or broken

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


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many calls a system holds.

    Attributes:
        calls: The largest number that was measured and met the bound; 0 where none did.
        more: Whether no larger number was measured: it may hold more.
    """

    calls: int
    more: bool

    def __str__(self) -> str:
        return f"{self.calls} or more" if self.more and self.calls else str(self.calls)


def pool(points: Iterable[Point]) -> list[Pooled]:
    """Take the rounds of each system and number of calls together, in the order of the points and of the calls."""
    groups: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        groups.setdefault((point.system, point.calls), []).append(point)
    systems = list(dict.fromkeys(system for system, _ in groups))
    ordered = sorted(groups, key=lambda key: (systems.index(key[0]), key[1]))
    return [Pooled(tuple(groups[key])) for key in ordered]


def capacity(pooled: Sequence[Pooled], bound_ms: float) -> Capacity:
    """Return how many calls the system of these points holds within a bound of its first-speech p95."""
    met = [point.calls for point in pooled if point.meets(bound_ms)]
    most = max(met, default=0)
    return Capacity(most, more=bool(met) and most == max(point.calls for point in pooled))


def by_system(points: Iterable[Point]) -> dict[str, list[Pooled]]:
    """Return the pooled points of each system, by calls."""
    found: dict[str, list[Pooled]] = {}
    for pooled in pool(points):
        found.setdefault(pooled.system, []).append(pooled)
    return found


def write(path: Path, about: dict[str, Any], points: Sequence[Point], stopped: Sequence[dict[str, Any]]) -> None:
    """Write everything, with a line a point; ``about`` has the ``objective_ms`` of the run."""
    bounds = sorted({*BOUNDS_MS, about["objective_ms"]})
    systems = by_system(points)
    result = {
        **about,
        "capacity": {
            name: {f"{bound:g}": dataclasses.asdict(capacity(pooled, bound)) for bound in bounds}
            for name, pooled in systems.items()
        },
        "stopped": list(stopped),
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in result.items()]
    lines.append('"summary": ' + _lines([p.summary() for pooled in systems.values() for p in pooled]))
    lines.append('"points": ' + _lines([dataclasses.asdict(point) for point in points]))
    # Whole or not at all: a run of hours may be stopped while it writes.
    partial = path.with_suffix(f"{path.suffix}.partial")
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    partial.replace(path)


def read(path: Path) -> tuple[dict[str, Any], list[Point]]:
    """Return what ``write`` has written: all of it, and the points."""
    result: dict[str, Any] = json.loads(path.read_text())
    return result, [Point.from_json(point) for point in result["points"]]


def _lines(values: Iterable[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(value, ensure_ascii=False) for value in values) + "\n]"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
