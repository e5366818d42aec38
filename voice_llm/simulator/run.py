"""run_calls: so many callers on the phone at once; place_calls: callers who dial when they like."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from ..errors import InvalidRequestError
from .caller import Caller, Clock, Sleep
from .results import CallResult, RunResult, TurnResult
from .script import CallScript
from .targets import CallHolder, Target

__all__ = ["Watcher", "place_calls", "run_calls"]

# How long a person waits before dialling again after a call that failed; it also keeps a dead target from being
# called as fast as the machine can.
_REDIAL_S: Final = 1.0


class Watcher:
    """Is told what happens in a run, as it happens. This one looks away."""

    def dialled(self, call_id: str, script: CallScript) -> None:
        """Somebody calls."""

    def turn(self, script: CallScript, turn: TurnResult) -> bool:
        """A turn is over; where False is returned, the caller hangs up."""
        return True

    def ended(self, call: CallResult) -> None:
        """A call is over."""


async def run_calls(
    target: Target | CallHolder,
    scripts: Iterable[CallScript],
    *,
    concurrent: int,
    duration_s: float | None = None,
    ramp_s: float = 0.0,
    speed: float = 1.0,
    run_id: str | None = None,
    clock: Clock = time.monotonic,
    sleep: Sleep = asyncio.sleep,
    on_progress: Callable[[CallResult], None] | None = None,
    watcher: Watcher | None = None,
) -> RunResult:
    """Let callers call: when one hangs up, the next script is dialled, so that ``concurrent`` are always on the phone.

    Args:
        target: Who answers; what it does wrong is in the results, and the next call goes on.
        scripts: The calls, in order; may be endless where ``duration_s`` is given.
        concurrent: How many callers there are at once.
        duration_s: After that many seconds callers hang up, once a running reply is complete. None for no limit.
        ramp_s: The first callers dial spread over that many seconds, not all at once.
        speed: Persons do everything so many times as fast. Latencies and gaps are a person's at 1 only.
        run_id: What call ids begin with; a fresh one by default, so that no server takes a call for an earlier one.
        clock: Monotonic seconds.
        sleep: Waits on that clock.
        on_progress: Called after each call.
        watcher: Is told what happens.

    Returns:
        All calls, also those that failed.

    Raises:
        InvalidRequestError: An argument is out of range.
    """
    _check_positive(concurrent=concurrent, speed=speed, duration_s=duration_s)
    if not 0 <= ramp_s < math.inf:
        raise InvalidRequestError(f"ramp_s must not be negative, not {ramp_s!r}", param="ramp_s")
    watching = _Progress(watcher or Watcher(), on_progress)
    run = _Run(target, iter(scripts), duration_s, speed, run_id, clock, sleep, watching)

    async def use_line(line: int) -> None:
        await sleep(ramp_s * line / concurrent)
        while clock() < run.until_s and (result := await run.next_call()) is not None:
            if result.errors:
                await sleep(_REDIAL_S / speed)

    async with asyncio.TaskGroup() as lines:
        for line in range(concurrent):
            lines.create_task(use_line(line))
    return run.result(concurrent)


async def place_calls(
    target: Target | CallHolder,
    scripts: Iterable[CallScript],
    times: Iterable[float],
    *,
    duration_s: float,
    speed: float = 1.0,
    run_id: str | None = None,
    clock: Clock = time.monotonic,
    sleep: Sleep = asyncio.sleep,
    watcher: Watcher | None = None,
) -> RunResult:
    """Let callers dial at their times, however many are on the phone, and wait until the last has hung up.

    Args:
        target: Who answers; what it does wrong is in the results.
        scripts: The calls, in order; may be endless.
        times: When each is dialled, in seconds from now at ``speed`` 1, in order.
        duration_s: Times from then on are left out. Calls that run then come to their end.
        speed: Persons do everything so many times as fast, and dial as much earlier.
        run_id: What call ids begin with; a fresh one by default.
        clock: Monotonic seconds.
        sleep: Waits on that clock.
        watcher: Is told what happens.

    Returns:
        All calls, also those that failed; ``concurrent`` is how many there were at once at most.

    Raises:
        InvalidRequestError: An argument is out of range.
    """
    _check_positive(speed=speed, duration_s=duration_s)
    run = _Run(target, iter(scripts), None, speed, run_id, clock, sleep, watcher or Watcher())
    async with asyncio.TaskGroup() as callers:
        for time_s in times:
            if time_s >= duration_s:
                break
            await sleep(max(0.0, run.started_s + time_s / speed - clock()))
            callers.create_task(run.next_call())
    return run.result(run.most_at_once)


@dataclass(slots=True)
class _Progress(Watcher):
    """A watcher, and a function that is called after each call."""

    watcher: Watcher
    on_progress: Callable[[CallResult], None] | None

    def dialled(self, call_id: str, script: CallScript) -> None:
        self.watcher.dialled(call_id, script)

    def turn(self, script: CallScript, turn: TurnResult) -> bool:
        return self.watcher.turn(script, turn)

    def ended(self, call: CallResult) -> None:
        self.watcher.ended(call)
        if self.on_progress is not None:
            self.on_progress(call)


@dataclass(slots=True)
class _Run:
    """What callers of one run share."""

    target: Target | CallHolder
    scripts: Iterator[CallScript]
    duration_s: float | None
    speed: float
    run_id: str | None
    clock: Clock
    sleep: Sleep
    watcher: Watcher
    started_s: float = field(init=False)
    until_s: float = field(init=False)
    most_at_once: int = field(init=False, default=0)
    _results: dict[int, CallResult] = field(init=False, default_factory=dict)
    _dialled: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.run_id = self.run_id or uuid4().hex[:8]
        self.started_s = self.clock()
        self.until_s = math.inf if self.duration_s is None else self.started_s + self.duration_s

    async def next_call(self) -> CallResult | None:
        """Hold the next call; None where there is none left."""
        script = next(self.scripts, None)
        if script is None:
            return None
        number, self._dialled = self._dialled, self._dialled + 1
        self.most_at_once = max(self.most_at_once, self._dialled - len(self._results))
        call_id = f"{self.run_id}-{number}"
        self.watcher.dialled(call_id, script)
        result = self._results[number] = await self._hold(script, call_id)
        self.watcher.ended(result)
        return result

    async def _hold(self, script: CallScript, call_id: str) -> CallResult:
        def on_turn(turn: TurnResult) -> bool:
            return self.watcher.turn(script, turn)

        if isinstance(self.target, CallHolder):
            return await self.target.hold(script, call_id, clock=self.clock, on_turn=on_turn)
        caller = Caller(
            script.at_speed(self.speed) if self.speed != 1 else script,
            self.target,
            call_id,
            clock=self.clock,
            sleep=self.sleep,
            until_s=self.until_s,
            on_turn=on_turn,
        )
        return await caller.run()

    def result(self, concurrent: int) -> RunResult:
        calls = tuple(self._results[number] for number in sorted(self._results))
        return RunResult(
            concurrent=concurrent, wall_s=self.clock() - self.started_s, started_s=self.started_s, calls=calls
        )


def _check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise InvalidRequestError(f"{name} must be more than 0, not {value!r}", param=name)
