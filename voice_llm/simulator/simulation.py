"""Simulation: scenarios, how many callers there are and when they dial: one thing to run against any target."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InvalidRequestError
from .arrivals import Arrivals
from .caller import Clock, Sleep
from .judged import JudgedRun, judge_run, judge_turn
from .results import CallResult, TurnResult
from .run import Watcher, place_calls, run_calls
from .scenario import Scenario, cast
from .script import CallScript
from .targets import CallHolder, Target

__all__ = ["Simulation"]

# Callers who are always on the phone do not all dial in the same instant.
_RAMP_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What is run.

    Attributes:
        scenarios: What callers call about; in random order, each as often as the others.
        calls: How many callers are on the phone at once, where there are no arrivals.
        duration_s: How long callers dial, in seconds at a speed of 1; None until each scenario was called once, or each
            caller has called once where there are more of those.
        arrivals: When callers dial who do not wait for others to hang up; needs ``duration_s``.
        speed: Persons do everything so many times as fast; latencies and gaps are a person's at 1 only.
        seed: The same one gives the same persons, words and moments.

    Raises:
        InvalidRequestError: A value is out of range; ``param`` names it.
    """

    scenarios: Sequence[Scenario]
    calls: int = 1
    duration_s: float | None = None
    arrivals: Arrivals | None = None
    speed: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.scenarios:
            raise InvalidRequestError("there is no scenario to run", param="scenarios")
        if self.arrivals is not None and self.duration_s is None:
            raise InvalidRequestError("arrivals need a duration_s: they have no end of their own", param="duration_s")
        if self.duration_s is not None and not 0 < self.duration_s < math.inf:
            raise InvalidRequestError(f"duration_s must be more than 0, not {self.duration_s!r}", param="duration_s")
        by_name = {scenario.name: scenario for scenario in self.scenarios}
        for scenario in self.scenarios:
            if scenario != by_name[scenario.name]:
                raise InvalidRequestError(
                    f"two scenarios are called {scenario.name!r}; give each its own name", param="scenarios"
                )

    @property
    def total_calls(self) -> int | None:
        """How many calls there will be; None where that is decided on the way."""
        if self.arrivals is not None and self.duration_s is not None:
            return sum(1 for _ in self.arrivals.times(self.seed, self.duration_s))
        return max(len(self.scenarios), self.calls) if self.duration_s is None else None

    async def run(
        self,
        target: Target | CallHolder,
        *,
        run_id: str | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        watcher: Watcher | None = None,
    ) -> JudgedRun:
        """Let the callers call, and hold what came against what was expected.

        Args:
            target: Who answers.
            run_id: What call ids begin with; a fresh one by default.
            clock: Monotonic seconds.
            sleep: Waits on that clock.
            watcher: Is told what happens.
        """
        scripts = itertools.islice(cast(self.scenarios, seed=self.seed), self.total_calls)
        stopping = {s.name: s for s in self.scenarios if s.stop_on_failure}
        watching = _StopsOnFailure(stopping, watcher or Watcher(), times_count=self.speed == 1)
        if self.arrivals is not None and self.duration_s is not None:
            run = await place_calls(
                target,
                scripts,
                self.arrivals.times(self.seed, self.duration_s),
                duration_s=self.duration_s,
                speed=self.speed,
                run_id=run_id,
                clock=clock,
                sleep=sleep,
                watcher=watching,
            )
        else:
            run = await run_calls(
                target,
                scripts,
                concurrent=self.calls,
                duration_s=None if self.duration_s is None else self.duration_s / self.speed,
                ramp_s=min(_RAMP_S * self.calls, (self.duration_s or math.inf) / 2) / self.speed,
                speed=self.speed,
                run_id=run_id,
                clock=clock,
                sleep=sleep,
                watcher=watching,
            )
        return judge_run(run, self.scenarios, times_count=self.speed == 1)


@dataclass(slots=True)
class _StopsOnFailure(Watcher):
    """Lets callers hang up whose scenario says so after a turn that failed."""

    scenarios: dict[str, Scenario]
    watcher: Watcher
    times_count: bool

    def dialled(self, call_id: str, script: CallScript) -> None:
        self.watcher.dialled(call_id, script)

    def turn(self, script: CallScript, turn: TurnResult) -> bool:
        goes_on = self.watcher.turn(script, turn)
        scenario = self.scenarios.get(script.name)
        return goes_on and (scenario is None or not judge_turn(turn, scenario, times_count=self.times_count).fails_run)

    def ended(self, call: CallResult) -> None:
        self.watcher.ended(call)
