"""CapacityPlan: how many calls a machine holds, measured where that is quick and simulated beyond."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ...engine.step_costs import StepCosts
from ..metrics import TIMES
from .points import LoadPoint, MeasuredTime

__all__ = ["Agreement", "CapacityPlan", "Replicas", "find_capacity"]

Limit = Literal["objective", "search"]
# How far simulation may lie off a measured figure and still agree with it.
_NEAR: Final = {"p50": 0.15, "p95": 0.25}


@dataclass(frozen=True, slots=True)
class Agreement:
    """A figure that was both measured and simulated.

    Attributes:
        calls: Callers at once.
        figure: Such as ``first speech p95``.
        measured_ms: Measured.
        interval_ms: Where the measured figure is with 95 % confidence.
        simulated_ms: Simulated.
    """

    calls: int
    figure: str
    measured_ms: float
    interval_ms: tuple[float, float]
    simulated_ms: float

    @property
    def off(self) -> float:
        """How far the simulation is off, as a share of what was measured."""
        return self.simulated_ms / self.measured_ms - 1

    @property
    def agrees(self) -> bool:
        """Whether it is near enough: 15 % of a median and 25 % of a 95th percentile, or within its interval."""
        low, high = self.interval_ms
        return abs(self.off) <= _NEAR[self.figure[-3:]] or (
            self.figure.endswith("p95") and low <= self.simulated_ms <= high
        )


def agreements(calls: int, title: str, measured: MeasuredTime, simulated: MeasuredTime) -> tuple[Agreement, ...]:
    """Hold the median and the 95th percentile of a simulated time against those of a measured one."""
    return (
        Agreement(calls, f"{title} p50", measured.p50, measured.p50_interval, simulated.p50),
        Agreement(calls, f"{title} p95", measured.p95, measured.p95_interval, simulated.p95),
    )


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many machines so many calls need.

    Attributes:
        calls: Calls at once.
        needed: Machines that hold them.
        with_spare: Machines that hold them when one is lost.
    """

    calls: int
    needed: int
    with_spare: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityPlan:
    """What a machine holds.

    Attributes:
        profile: Whose engine it is.
        objective: What has to hold.
        measured: Points on the real engine.
        simulated: Points in virtual time, in order of calls.
        costs: What the engine's steps took when it was measured last, which the simulation goes on with.
        capacity: Most calls for which the objective holds; 0 where it never does.
        limited_by: Whether one more call misses the objective, or was not looked at.
    """

    profile: str
    objective: str
    measured: tuple[LoadPoint, ...]
    simulated: tuple[LoadPoint, ...]
    costs: StepCosts
    capacity: int
    limited_by: Limit

    @property
    def agreement(self) -> tuple[Agreement, ...]:
        """How well simulation and measurement agree, where there are both."""
        simulated = {point.calls: point for point in self.simulated}
        return tuple(
            agreement
            for point in self.measured
            if point.calls in simulated
            for name, time in point.times.items()
            if name in simulated[point.calls].times
            for agreement in agreements(point.calls, TIMES[name].title, time, simulated[point.calls].times[name])
        )

    def replicas_for(self, calls: int) -> Replicas | None:
        """Return how many machines so many calls need; None where a machine holds none."""
        if not self.capacity:
            return None
        needed = math.ceil(calls / self.capacity)
        return Replicas(calls, needed, needed + 1)

    def to_json(self, needs: Sequence[int] = ()) -> dict[str, Any]:
        """Return it as ``json.dumps`` takes it, with the machines that so many calls need."""
        return {
            "replicas": [asdict(replicas) for calls in needs if (replicas := self.replicas_for(calls))],
            "profile": self.profile,
            "objective": self.objective,
            "capacity": self.capacity,
            "limited_by": self.limited_by,
            "measured": [point.to_json() for point in self.measured],
            "simulated": [point.to_json() for point in self.simulated],
            "agreement": [asdict(a) | {"off": round(a.off, 4), "agrees": a.agrees} for a in self.agreement],
            "costs": self.costs.to_json(),
        }


def find_capacity(
    is_met: Callable[[int], bool], *, known: Sequence[int] = (), start: int = 1, most: int = 256
) -> tuple[int, Limit]:
    """Return the largest number of calls for which ``is_met`` holds, and what ends the search.

    Doubles until it does not hold, then halves the distance: whoever holds a number is taken to hold all smaller ones.

    Args:
        is_met: Whether the objective holds with so many calls.
        known: Numbers that are tried first, in order, since they are measured anyway.
        start: The first number after these.
        most: Where the search ends.
    """
    held, missed = 0, most + 1
    for calls in sorted(known):
        if not is_met(calls):
            missed = calls
            break
        held = calls
    calls = max(start, held * 2)
    while held < calls < missed:
        if is_met(calls):
            held = calls
        else:
            missed = calls
        calls = min(calls * 2, most) if missed > most else missed
    while missed - held > 1 and held < most:
        middle = (held + missed) // 2
        if is_met(middle):
            held = middle
        else:
            missed = middle
    return held, "objective" if missed <= most else "search"
