"""What is to be measured, and what of it is still worth measuring."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from .capacity import gives_up
from .points import Point
from .systems import System
from .window import Window
from .workload import Workload

__all__ = ["Ladder", "Plan", "Planned"]

# Starting a server, asking it the first question, and ending it.
_AROUND_S: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured.

    Attributes:
        systems: Which ones.
        calls: The ladder: callers on the phone at once.
        rounds: How often each point is measured.
        point_s: Window of a point.
        objective_ms: First-speech p95 to meet.
        stop_ms: First-speech p95 from which on a system is far off; at least the objective.
        threads: Of each server.
        full: Climb the ladder to its end, whatever is found.
        workload: The calls.

    Raises:
        ValueError: A number is out of range.
    """

    systems: tuple[System, ...]
    calls: tuple[int, ...]
    rounds: int
    point_s: float
    objective_ms: float
    stop_ms: float
    threads: int
    full: bool = False
    workload: Workload = field(default_factory=Workload)

    def __post_init__(self) -> None:
        numbers = {"rounds": self.rounds, "point-s": self.point_s, "objective-ms": self.objective_ms}
        for name, value in {**numbers, "threads": self.threads, "calls": min(self.calls, default=0)}.items():
            if not 0 < value < math.inf:
                raise ValueError(f"--{name} must be more than 0, not {value:g}")
        if not self.objective_ms <= self.stop_ms < math.inf:
            raise ValueError(f"--stop-ms must be at least --objective-ms, {self.objective_ms:g}, not {self.stop_ms:g}")
        if max(self.calls) > 256:
            raise ValueError(f"--calls must be at most 256, llama.cpp's limit, not {max(self.calls)}")
        if list(self.calls) != sorted(set(self.calls)):
            raise ValueError("--calls must go up, and no number may come twice")

    def seconds(self, calls: int) -> float:
        """How long a point takes, about."""
        return Window.of(calls, self.point_s).closes_s + _AROUND_S

    def order(self, round_: int) -> tuple[System, ...]:
        """The systems in the order of a round: each comes first in turn, so that none always follows the same one."""
        first = round_ % len(self.systems)
        return self.systems[first:] + self.systems[:first]


@dataclass(frozen=True, slots=True)
class Planned:
    """A point that may be measured."""

    system: System
    calls: int
    round: int


class Ladder:
    """Which points of a plan are still worth measuring, as a run goes on.

    Two clear misses in a row end the round for a system.

    Args:
        plan: All points.
        held: Those that were measured before; others than the plan's do no harm.
    """

    def __init__(self, plan: Plan, held: Iterable[Point] = ()) -> None:
        self._plan = plan
        self._found: dict[tuple[str, int], dict[int, Point]] = {}
        for point in held:
            self.note(point)

    def points(self) -> Iterator[Planned]:
        """Yield the points, each when the one before has been ``note``d."""
        return (planned for planned in self._all() if self._is_left(planned))

    def note(self, point: Point) -> None:
        """Take note of what was found."""
        self._found.setdefault((point.system, point.round), {})[point.calls] = point

    def seconds_left(self) -> float:
        """How long what is left takes, about, if nobody else is given up."""
        return sum(self._plan.seconds(planned.calls) for planned in self.points())

    def _all(self) -> Iterator[Planned]:
        for round_ in range(self._plan.rounds):
            for calls in self._plan.calls:
                for system in self._plan.order(round_):
                    yield Planned(system, calls, round_)

    def _is_left(self, planned: Planned) -> bool:
        found = self._found.get((planned.system.name, planned.round), {})
        below = [found[calls] for calls in sorted(found) if calls < planned.calls]
        return planned.calls not in found and (self._plan.full or not gives_up(below, self._plan.stop_ms))
