"""Virtual time jumps over waits and nothing else."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from voice_llm.testing.virtual_time import run_in_virtual_time

from .fakes import now

pytestmark = pytest.mark.unit


def test_an_hour_passes_in_no_time_and_exactly() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return now()

    started_s = time.monotonic()
    assert run_in_virtual_time(main()) == pytest.approx(3600, abs=1e-6)
    assert time.monotonic() - started_s < 60


def test_tasks_wake_in_the_order_of_their_timers() -> None:
    woken: list[tuple[float, str]] = []

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((round(now(), 6), name))

    async def main() -> None:
        await asyncio.gather(wait("c", 30), wait("a", 10), wait("b", 20), wait("b2", 20))

    run_in_virtual_time(main())
    assert woken == [(10, "a"), (20, "b"), (20, "b2"), (30, "c")]


def test_time_stands_still_while_a_task_has_something_to_do() -> None:
    async def main() -> float:
        sleeper = asyncio.create_task(asyncio.sleep(1))
        for _ in range(100):
            await asyncio.sleep(0)
        at = now()
        sleeper.cancel()
        return at

    assert run_in_virtual_time(main()) == 0


def test_what_a_socket_has_ready_comes_before_the_next_timer() -> None:
    ours, theirs = socket.socketpair()

    async def main() -> list[float]:
        read_s: list[float] = []

        def read() -> None:
            ours.recv(1)
            read_s.append(now())

        asyncio.get_running_loop().add_reader(ours, read)
        theirs.send(b"x")
        await asyncio.sleep(10)
        asyncio.get_running_loop().remove_reader(ours)
        return read_s

    with ours, theirs:
        assert run_in_virtual_time(main()) == [0.0]


def test_timeouts_run_on_virtual_time_too() -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await asyncio.sleep(6)

    with pytest.raises(TimeoutError):
        run_in_virtual_time(main())


def test_other_threads_are_waited_for_while_no_timer_is_pending() -> None:
    async def main() -> int:
        return await asyncio.to_thread(sum, [1, 2])

    assert run_in_virtual_time(main()) == 3
