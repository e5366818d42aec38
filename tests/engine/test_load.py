"""CallLoad: the work that open calls bring, by what it is for."""

from __future__ import annotations

import math

import pytest

from tests.engine.driver import Driver, chat
from tests.engine.held_calls import HeldCalls
from voice_llm.engine import IsolationKey, LiveCall, Request, RequestKind
from voice_llm.engine.load import CallLoad, LoadSums
from voice_llm.testing import VirtualClock

pytestmark = pytest.mark.unit

SYSTEM = "You are a patient voice on the phone. " * 4


def test_quotients_are_what_a_call_brings_in_a_second() -> None:
    held = HeldCalls(calls=4)
    held.talk(200.0, every_s=5.0, work_ms=300.0, reply_ms=100.0)
    sums = held.load.sums(held.clock())
    assert sums.turns / sums.call_s == pytest.approx(1 / 5, rel=0.02)
    assert sums.turn_ms / sums.turns == pytest.approx(300)
    assert sums.turn_ms2 / sums.turns == pytest.approx(300**2)
    assert sums.reply_ms / sums.turns == pytest.approx(100, rel=0.02)
    assert sums.first_words_s / sums.first_words == pytest.approx(0.3)
    assert sums.call_s / sums.observed_s == pytest.approx(4)


def test_the_last_minute_counts_most() -> None:
    held = HeldCalls(calls=2)
    held.talk(300.0, every_s=5.0, work_ms=100.0)
    held.talk(120.0, every_s=5.0, work_ms=400.0)
    sums = held.load.sums(held.clock())
    old = math.exp(-2)
    assert sums.turn_ms / sums.turns == pytest.approx(100 * old + 400 * (1 - old), rel=0.03)


def test_years_of_calls_are_no_more_than_a_minute_of_them() -> None:
    held = HeldCalls(calls=2)
    held.talk(60.0, every_s=5.0, work_ms=100.0)
    held.clock.advance(3e8)
    assert held.load.sums(held.clock()).turns < 1e-6
    held.talk(300.0, every_s=5.0, work_ms=100.0)
    sums = held.load.sums(held.clock())
    assert sums.observed_s == pytest.approx(60, rel=0.01)
    assert sums.turns == pytest.approx(2 * 60 / 5, rel=0.1)


def test_nothing_is_measured_before_a_call_is_held() -> None:
    clock = VirtualClock(5.0)
    load = CallLoad()
    load.stepped([], [], 10.0, clock())
    load.closed(LiveCall("never", IsolationKey("fake", "test", "acme")), clock())
    assert load.sums(clock()) == LoadSums()


def test_first_prompt_is_an_opening_and_later_prefill_a_hint() -> None:
    driver = Driver(sequences=2)
    call = driver.open()
    driver.hint(call, f"<|im_start|>system\n{SYSTEM}<|im_end|>\n")
    driver.run()
    load = driver.batcher.calls.load
    opened = load.sums(driver.clock())
    assert opened.opening_ms > 100
    assert opened.openings == pytest.approx(1)
    assert opened.hint_ms == opened.turns == 0
    driver.hint(call, chat("Hello?", system=SYSTEM)[:-20])
    driver.run()
    driver.say(call, chat("Hello?", system=SYSTEM))
    sums = load.sums(driver.clock())
    assert sums.hint_ms > 0
    assert sums.openings == pytest.approx(1, rel=0.1)
    assert sums.turns == pytest.approx(1, rel=0.1)


def test_all_the_time_of_steps_is_accounted_for() -> None:
    driver = Driver(sequences=3)
    calls = [driver.open() for _ in range(3)]
    for round_ in range(3):
        said = [f"Merhaba, {i}." for i in range(2 * round_ + 1)]
        for call in calls:
            driver.turn(call, chat(*said, system=SYSTEM))
        driver.run()
    sums = driver.batcher.calls.load.sums(driver.clock())
    work_ms = sums.opening_ms + sums.turn_ms + sums.reply_ms + sums.hint_ms
    # All of it within some seconds, so that hardly anything is forgotten.
    assert driver.batcher.counters.step_ms * 0.8 < work_ms <= driver.batcher.counters.step_ms


def test_soft_calls_and_one_shots_are_kept_apart() -> None:
    driver = Driver(sequences=4)
    driver.open()
    key = IsolationKey("fake", "test", "acme")
    soft = driver.batcher.open_call("soft", key, soft=True)
    shot = driver.batcher.open_call("shot", key, one_shot=True)
    driver.say(shot, chat("Sum it up."))
    assert driver.batcher.calls.load.sums(driver.clock()).soft_ms == 0
    driver.say(soft, chat("Hello?"))
    sums = driver.batcher.calls.load.sums(driver.clock())
    assert sums.soft_ms > 0
    assert sums.turn_ms == sums.reply_ms == sums.hint_ms == sums.opening_ms == 0


def test_calls_that_end_are_counted_if_they_were_answered() -> None:
    driver = Driver(sequences=2)
    answered, silent = driver.open(), driver.open()
    driver.say(answered, chat("Hello?"))
    driver.hint(silent, chat("Hello?"))
    driver.run()
    for call in (answered, answered, silent):
        driver.batcher.close_call(call)
    load = driver.batcher.calls.load
    assert load.sums(driver.clock()).ended == pytest.approx(1)
    assert load.calls == 0


def test_cancelled_turn_counts_with_the_work_that_was_done() -> None:
    driver = Driver(sequences=1)
    call = driver.open()
    driver.say(call, chat("Hello?"))
    turn: Request = driver.turn(call, chat("Hello?", "Yes.", "And then? " * 60))
    driver.step()
    driver.batcher.cancel(turn)
    assert turn.kind is RequestKind.TURN
    driver.step()
    sums = driver.batcher.calls.load.sums(driver.clock())
    assert sums.turns == pytest.approx(1)
    assert sums.turn_ms > 0
    assert sums.first_words == 0
