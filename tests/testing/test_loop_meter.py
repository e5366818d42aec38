"""LoopMeter tells what holds an event loop up from what merely delays it."""

from __future__ import annotations

import asyncio
import time

import pytest

from voice_llm.testing import LoopMeter

pytestmark = pytest.mark.unit


async def test_a_callback_that_computes_is_blamed() -> None:
    with LoopMeter() as meter:
        await asyncio.sleep(0.02)
        until_s = time.thread_time() + 0.05
        while time.thread_time() < until_s:
            pass
        await asyncio.sleep(0.02)
    assert meter.longest.cpu_ms > 30
    assert meter.slowest.wall_ms >= meter.longest.cpu_ms * 0.9


async def test_a_callback_that_sleeps_shows_in_the_wall_clock_only() -> None:
    with LoopMeter() as meter:
        await asyncio.sleep(0.02)
        time.sleep(0.08)  # noqa: ASYNC251  # the blunder that the meter is to find
        await asyncio.sleep(0.02)
    assert meter.slowest.wall_ms > 60
    assert meter.longest.cpu_ms < 30


async def test_an_idle_loop_is_reached_often_and_at_no_cost() -> None:
    with LoopMeter() as meter:
        await asyncio.sleep(0.2)
    assert meter.pings > 5
    assert meter.longest.cpu_ms < 20
    assert 0 < meter.percentile_ms(0.5) <= meter.percentile_ms(0.99) <= meter.slowest.wall_ms
