"""The share of Python is made of the steps in which all calls talk, and is never made to look small."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

import pytest

from benchmarks import python_share
from benchmarks.python_share import BOUNDS, CALLS, StepClock, judge, summary
from benchmarks.tables import _SHOWN
from tests.engine.driver import Driver, chat
from voice_llm.backend import BatchEntry
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

NATIVE_S: Final = 0.002


class Backend(FakeBackend):
    """Computes in "native" calls that take their time."""

    api = SimpleNamespace(llama_decode=lambda: time.sleep(NATIVE_S), llama_synchronize=lambda: None)

    def decode(self, entries: Sequence[BatchEntry]) -> int:
        self.api.llama_decode()
        return super().decode(entries)


def a_step(**parts: float) -> dict[str, float]:
    return {"plan": 0.1, "fill": 0.2, "sample": 0.5, "rest": 0.2, "native": 19.0, "native_cpu": 18.0, **parts}


def run(sampling: str, loop: str, **steps: float) -> dict[str, Any]:
    return {"sampling": sampling, "loop": loop, **summary([a_step(**steps)])}


def test_only_steps_in_which_all_talk_are_timed_and_their_parts_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    native = Backend.api
    monkeypatch.setattr(python_share, "api", native)
    monkeypatch.setattr(python_share, "TalkativeBackend", Backend)
    originals = (native.llama_decode, Backend.decode, Backend.sample)
    driver = Driver(sequences=CALLS, backend_type=Backend, reply=lambda _: "x" * 60)
    for n in range(CALLS):
        driver.turn(driver.open(), chat("Anlat"), max_tokens=30 + n)
    clock = StepClock()
    with clock.watching():
        driver.run()
    assert (native.llama_decode, Backend.decode, Backend.sample) == originals, "nothing stays wrapped"
    together = [batch for batch in driver.backend.batches if [tokens for _, tokens in batch] == [1] * CALLS]
    assert 10 < len(clock.steps) == len(together) < len(driver.backend.batches)
    for step in clock.steps:
        assert sum(step[part] for part in ("plan", "fill", "sample", "rest", "native")) == pytest.approx(step["step"])
        assert step["native"] >= NATIVE_S * 1e3
        assert step["native_cpu"] < step["native"], "sleeping is no work"
        assert min(step.values()) >= 0


def test_share_is_what_is_not_native() -> None:
    found = summary([a_step(), a_step()])
    assert found["share"] == pytest.approx(0.05)
    assert found["share_at_most"] == pytest.approx(0.1), "all waiting in native calls counted as Python's"
    assert (found["steps"], found["step_ms"], found["native_ms"]) == (2, 20.0, 19.0)


def test_native_call_that_waited_for_a_core_hides_nothing() -> None:
    assert summary([a_step(), a_step(), a_step(native=1900.0)])["share"] == pytest.approx(0.05)


def test_slow_steps_of_python_count_in_full() -> None:
    assert summary([a_step(), a_step(sample=2.5)])["share"] == pytest.approx(2 / 21, abs=1e-4)


def test_no_step_is_no_result() -> None:
    with pytest.raises(RuntimeError, match="--steps"):
        summary([])


def test_worst_of_greedy_and_sampled_is_held_against_the_bound_of_its_loop() -> None:
    slow = {"sample": 1.4}  # 9 % of the step: too much on a quiet loop, and not on a busy one
    runs = [run(sampling, loop, **steps) for loop in BOUNDS for sampling, steps in (("greedy", {}), ("sampled", slow))]
    quiet, busy = judge(runs)
    assert (quiet.name, quiet.passed) == ("python_share_quiet", False)
    assert (busy.name, busy.passed) == ("python_share_busy", True)
    assert judge([run("greedy", loop) for loop in BOUNDS])[0].passed


def test_readme_shows_the_share_of_each_way_to_sample() -> None:
    proof = judge([run(sampling, loop) for loop in BOUNDS for sampling in ("greedy", "sampled")])[0]
    shown = _SHOWN[proof.name](proof.figures)
    assert shown.startswith("greedy 5.0% of 20 ms, sampled 5.0% of 20 ms; ")
    assert "with all waits" in shown
