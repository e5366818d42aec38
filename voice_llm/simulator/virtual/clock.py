"""StepClock: an event loop's virtual time, and within a step of the engine what that has taken so far."""

from __future__ import annotations

import asyncio

from ...testing import VirtualClock

__all__ = ["StepClock"]


class StepClock(VirtualClock):
    """The clock of an engine in virtual time; belongs to the running event loop.

    A step is computed at one moment of the loop. What it takes is added up here, and passes on the loop afterwards.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> float:
        """Return the present time, in seconds."""
        return self._loop.time() + super().__call__()

    async def catch_up(self) -> None:
        """Let pass on the loop what the last step has taken."""
        ahead_s, self._now_s = self._now_s, 0.0
        if ahead_s:
            await asyncio.sleep(ahead_s)
