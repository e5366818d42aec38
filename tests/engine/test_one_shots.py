"""One-shot inferences beside the live calls."""

from __future__ import annotations

import pytest

from voice_llm.engine import IsolationKey, LiveCall

from .driver import Driver, chat

pytestmark = pytest.mark.unit


def open_shot(driver: Driver) -> LiveCall:
    return driver.batcher.open_call("shot", IsolationKey("fake", "test", "acme"), one_shot=True)


def test_a_one_shot_waits_while_all_sequences_talk_and_then_runs() -> None:
    driver = Driver(sequences=1)
    talking = driver.turn(driver.open(), chat("a"))
    driver.run_until(talking, "talking")
    shot = driver.turn(open_shot(driver), chat("Summarise."))
    driver.step()
    assert shot.state.value == "queued"
    driver.run()
    assert driver.text(talking).startswith("You said a.")
    assert driver.text(shot).startswith("You said Summarise.")


def test_of_two_that_wait_the_caller_goes_before_the_one_shot_that_asked_first() -> None:
    driver = Driver(sequences=1, max_calls=2)
    talking = driver.turn(driver.open(), chat("a"))
    driver.run_until(talking, "talking")
    shot = driver.turn(open_shot(driver), chat("Summarise."))
    caller = driver.turn(driver.open(), chat("b"))
    driver.run_until(caller, "talking")
    assert shot.state.value == "queued"
    driver.run()
    assert driver.finished(shot)
