"""The watchdog tells once for each time that a step does not end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from voice_llm.errors import EngineDeadError
from voice_llm.runtime.watchdog import Watchdog
from voice_llm.testing import VirtualClock

from .helpers import GatedBackend, running

pytestmark = pytest.mark.unit


def test_each_stall_is_told_once() -> None:
    answers = iter([False, True, True, False, True])
    looked = threading.Event()
    told: list[str] = []

    def is_stalled() -> bool:
        try:
            return next(answers)
        except StopIteration:
            looked.set()
            return True

    watchdog = Watchdog(is_stalled, lambda: told.append("stalled"), every_s=0.001)
    watchdog.start()
    assert looked.wait(10)
    watchdog.stop()
    watchdog.stop()
    assert told == ["stalled", "stalled"]


async def test_a_stalled_step_fails_its_waiters_and_the_ones_to_come() -> None:
    """The step itself cannot be ended; once it comes back, the engine serves again."""
    clock = VirtualClock()
    backend = GatedBackend()
    async with running(backend, clock=clock) as engine, engine.open_call() as call:
        backend.hold()
        stream = call.generate([{"role": "user", "content": "Merhaba"}])
        await backend.held()
        clock.advance(31.0)
        engine._tell_of_stall()
        with pytest.raises(EngineDeadError, match="stalled"):
            await anext(stream)
        assert "more than 30 s" in engine.health().detail
        with pytest.raises(EngineDeadError, match="stalled"):
            call.generate([{"role": "user", "content": "Alo?"}])
        with pytest.raises(EngineDeadError, match="stalled"):
            await engine.stats()
        await asyncio.wait_for(call.close(), 10)
        backend.release()
        async with asyncio.timeout(10):
            while not engine.health().healthy:
                await asyncio.sleep(0)
        await engine.check_integrity()
        assert engine.health().open_calls == 0
