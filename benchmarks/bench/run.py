"""The run: rounds over all systems, up the ladder of calls."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .measure import BenchError, Window, measure, prompt_tokens
from .results import Point, Pooled
from .systems import Setup, System
from .workload import Reader, Workload

__all__ = ["CONTEXT_TOKENS", "Ladder", "Plan", "Planned", "Run", "check_prompt"]

CONTEXT_TOKENS: Final = 2048
_MISSES: Final = 2
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
    threads: int
    full: bool = False
    workload: Workload = field(default_factory=Workload)

    def __post_init__(self) -> None:
        numbers = {"rounds": self.rounds, "point-s": self.point_s, "objective-ms": self.objective_ms}
        for name, value in {**numbers, "threads": self.threads, "calls": min(self.calls, default=0)}.items():
            if not 0 < value < math.inf:
                raise ValueError(f"--{name} must be more than 0, not {value:g}")
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

    Attributes:
        stopped: Where a system was given up, and what was not measured for it.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._misses: dict[tuple[str, int], int] = {}
        self.stopped: list[dict[str, Any]] = []

    def points(self) -> Iterator[Planned]:
        """Yield the points, each when the one before has been ``note``d."""
        for round_ in range(self._plan.rounds):
            for calls in self._plan.calls:
                for system in self._plan.order(round_):
                    if self.climbs(system, round_):
                        yield Planned(system, calls, round_)

    def climbs(self, system: System, round_: int) -> bool:
        """Whether a system goes on in a round."""
        return self._plan.full or self._misses.get((system.name, round_), 0) < _MISSES

    def note(self, point: Point) -> None:
        """Take note of what was found: two clear misses in a row end the round for a system."""
        key = (point.system, point.round)
        missed = Pooled((point,)).misses_clearly(self._plan.objective_ms)
        self._misses[key] = self._misses.get(key, 0) + 1 if missed else 0
        left = [calls for calls in self._plan.calls if calls > point.calls]
        if self._misses[key] == _MISSES and left and not self._plan.full:
            self.stopped.append({"system": point.system, "round": point.round, "not_measured": left})

    def seconds_left(self, after: Planned | None) -> float:
        """How long the points after this one take, about, if nobody else is given up."""
        left = 0.0
        passed = after is None
        for round_ in range(self._plan.rounds):
            for calls in self._plan.calls:
                for system in self._plan.order(round_):
                    if passed and self.climbs(system, round_):
                        left += self._plan.seconds(calls)
                    passed = passed or after == Planned(system, calls, round_)
        return left


class Run:
    """A run as it goes on.

    Args:
        plan: What to measure.
        model: The model file.
        on_point: Called with each point when it has been measured.
        on_start: Called with each point before.

    Attributes:
        points: What has been measured.
        ladder: What is left.
    """

    def __init__(
        self,
        plan: Plan,
        model: Path,
        *,
        on_start: Callable[[Planned], None] = lambda planned: None,
        on_point: Callable[[Planned, Point], None] = lambda planned, point: None,
    ) -> None:
        self._plan = plan
        self._model = model
        self._on_start = on_start
        self._on_point = on_point
        self.points: list[Point] = []
        self.ladder = Ladder(plan)

    def go(self) -> None:
        """Measure it all; an interrupt leaves what was measured before in ``points``.

        Raises:
            BenchError: A system reads another prompt than the others.
            PeerError: llama.cpp's server is missing, or does not run.
        """
        probe = self._plan.workload.probe()
        with Reader(self._model) as reader:
            expected = len(reader.first_prompt(probe))
        for planned in self.ladder.points():
            self._on_start(planned)
            setup = Setup(self._model, planned.calls, CONTEXT_TOKENS, self._plan.threads)
            scripts = self._plan.workload.scripts(planned.round, planned.calls)
            with planned.system.start(setup) as server:
                read = asyncio.run(prompt_tokens(planned.system, server, probe))
                check_prompt(planned.system.name, read, expected)
                window = Window.of(planned.calls, self._plan.point_s)
                point = asyncio.run(
                    measure(planned.system, server, scripts, calls=planned.calls, round_=planned.round, window=window)
                )
            self.points.append(point)
            self.ladder.note(point)
            self._on_point(planned, point)


def check_prompt(system: str, read: int, expected: int) -> None:
    """Hold a system's own count of a prompt's tokens against what the prompt has.

    Raises:
        BenchError: It is another: the system is given other work than the rest.
    """
    if read != expected:
        raise BenchError(
            f"{system} reads {read} tokens in a prompt of {expected}: it is given other work than the rest"
        )
