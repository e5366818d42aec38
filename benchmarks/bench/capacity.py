"""How many calls a system holds, against another one, and where it is not worth measuring any more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from .points import Point, Pooled

__all__ = ["BOUNDS_MS", "Capacity", "best", "bounds_ms", "capacity", "given_up", "gives_up", "ratio"]

BOUNDS_MS: Final = (500.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0)
"""First-speech p95 for which the largest number of calls is told: machines differ, and so do callers."""

_MISSES: Final = 2


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many calls a system holds.

    Attributes:
        calls: The largest number that met the bound, as all smaller ones did that were measured; 0 where none did.
        more: Whether all that were measured met it: it may hold more.
    """

    calls: int
    more: bool

    def __str__(self) -> str:
        return f"{self.calls} or more" if self.more and self.calls else str(self.calls)


def bounds_ms(objective_ms: float) -> list[float]:
    """Return the bounds for which capacities are told, the objective among them."""
    return sorted({*BOUNDS_MS, objective_ms})


def capacity(pooled: Sequence[Pooled], bound_ms: float) -> Capacity:
    """Return how many calls the system of these points holds within a bound of its first-speech p95.

    A number that met it beyond a smaller one that missed it does not count: the machine was faster in those minutes.
    """
    climbed = sorted(pooled, key=lambda point: point.calls)
    held = [point.calls for point in takewhile(lambda point: point.meets(bound_ms), climbed)]
    return Capacity(held[-1] if held else 0, more=bool(held) and len(held) == len(climbed))


def best(capacities: Iterable[Capacity]) -> Capacity:
    """Return the largest of at least one; it may be more where one of them may be."""
    all_ = list(capacities)
    return Capacity(max(held.calls for held in all_), more=any(held.more for held in all_))


def ratio(ours: Capacity, peer: Capacity) -> str:
    """Say how many times the calls of the peer ours holds; ``none`` where the peer holds none."""
    if not peer.calls:
        return "none"
    if ours.more and peer.more:
        return "not known"
    times = f"{ours.calls / peer.calls:.1f}x"
    if ours.more:
        return f"{times} or more"
    return f"{times} or less" if peer.more else times


def gives_up(below: Sequence[Point], stop_ms: float) -> bool:
    """Whether a system is not asked to hold more calls than in these points of a round, by calls upwards."""
    last = below[-_MISSES:]
    return len(last) == _MISSES and all(Pooled((point,)).misses_clearly(stop_ms) for point in last)


def given_up(points: Iterable[Point], calls: Sequence[int], stop_ms: float) -> list[dict[str, Any]]:
    """Return where systems were given up: ``system``, ``round`` and the numbers of calls that are ``not_measured``."""
    climbed: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        climbed.setdefault((point.system, point.round), []).append(point)
    found = []
    for (system, round_), measured in climbed.items():
        by_calls = sorted(measured, key=lambda point: point.calls)
        left = [
            rung
            for rung in sorted({*calls} - {point.calls for point in measured})
            if gives_up([point for point in by_calls if point.calls < rung], stop_ms)
        ]
        if left:
            found.append({"system": system, "round": round_, "not_measured": left})
    return found
