"""run_calls: so many callers on the phone at once, until they have said everything."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import Final
from uuid import uuid4

from ..errors import InvalidRequestError
from .caller import Caller, Clock, Sleep
from .results import CallResult, RunResult
from .script import CallScript
from .targets import Target

__all__ = ["run_calls"]

# How long a person waits before dialling again after a call that failed; it also keeps a dead target from being
# called as fast as the machine can.
_REDIAL_S: Final = 1.0


async def run_calls(
    target: Target,
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

    Returns:
        All calls, also those that failed.

    Raises:
        InvalidRequestError: An argument is out of range.
    """
    for name, value in (("concurrent", concurrent), ("speed", speed), ("duration_s", duration_s)):
        if value is not None and not 0 < value < math.inf:
            raise InvalidRequestError(f"{name} must be more than 0, not {value!r}", param=name)
    if not 0 <= ramp_s < math.inf:
        raise InvalidRequestError(f"ramp_s must not be negative, not {ramp_s!r}", param="ramp_s")
    started_s = clock()
    until_s = math.inf if duration_s is None else started_s + duration_s
    prefix = run_id or uuid4().hex[:8]
    waiting = enumerate(scripts)
    results: dict[int, CallResult] = {}

    async def use_line(line: int) -> None:
        await sleep(ramp_s * line / concurrent)
        while clock() < until_s and (dialled := next(waiting, None)) is not None:
            number, script = dialled
            caller = Caller(
                script.at_speed(speed), target, f"{prefix}-{number}", clock=clock, sleep=sleep, until_s=until_s
            )
            result = results[number] = await caller.run()
            if on_progress is not None:
                on_progress(result)
            if result.errors:
                await sleep(_REDIAL_S / speed)

    async with asyncio.TaskGroup() as lines:
        for line in range(concurrent):
            lines.create_task(use_line(line))
    calls = tuple(results[number] for number in sorted(results))
    return RunResult(concurrent=concurrent, wall_s=clock() - started_s, calls=calls)
