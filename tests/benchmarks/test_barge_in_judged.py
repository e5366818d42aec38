"""What the proofs of barge-in make of what they saw."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks import barge_in
from benchmarks.barge_in import BargeIn, Reuse, StepLog, released, reuse_of, reused
from benchmarks.tables import _SHOWN

pytestmark = pytest.mark.unit

KNOWN = list(range(50))


def steps_of(*ends_s: float, took_s: float = 0.1) -> StepLog:
    return StepLog([(end_s - took_s, end_s) for end_s in ends_s])


def test_step_is_noted_from_its_beginning_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barge_in, "time", SimpleNamespace(monotonic=lambda: 7.0))
    log = StepLog()
    log.step("decode", 8, 0.25)
    assert log.spans_s == [(6.75, 7.0)]


@pytest.mark.parametrize(("to_s", "steps"), [(1.05, 0), (1.12, 1), (1.25, 2)])
def test_steps_that_end_before_the_row_is_free_are_counted(to_s: float, steps: int) -> None:
    assert len(steps_of(1.0, 1.1, 1.2, 1.3).between(1.02, to_s)) == steps


def test_row_that_is_free_after_the_running_step_is_in_time() -> None:
    proof = released([BargeIn("talking", 1.05, 1.101, 1)] * 200, steps_of(1.0, 1.1, 1.2))
    assert proof.passed
    assert proof.figures["freed_ms"]["worst"] == pytest.approx(51, abs=0.1)
    assert proof.figures["beyond_step_ms"]["worst"] == pytest.approx(-49, abs=0.1)
    assert _SHOWN[proof.name](proof.figures) == (
        "1 step; 51 ms p50, 51 ms p99 over 200 barge-ins, the step was 100 ms p99"
    )


@pytest.mark.parametrize(("late", "passed"), [(1, True), (10, False)])
def test_one_in_a_hundred_may_be_late_and_no_more(late: int, *, passed: bool) -> None:
    in_time, later = BargeIn("talking", 1.05, 1.101, 1), BargeIn("prefilling", 1.05, 1.201)
    assert released([in_time] * (200 - late) + [later] * late, steps_of(1.0, 1.1, 1.2)).passed is passed


def test_tokens_drawn_after_it_count_against_it() -> None:
    assert not released([BargeIn("talking", 1.05, 1.101, 2)] * 20, steps_of(1.1)).passed


def test_what_had_ended_or_never_come_to_the_engine_proves_nothing() -> None:
    others = [BargeIn("done", 1.0, 1.0), BargeIn("preparing", 1.0, 1.0)]
    figures = released([BargeIn("queued", 1.05, 1.101), *others], steps_of(1.1)).figures
    assert figures["barge_ins"] == 1
    assert figures["by_state"] == {"queued": 1, "done": 1, "preparing": 1}


def test_of_a_whole_prompt_all_is_expected() -> None:
    assert reuse_of("talking", [], KNOWN, 44) == Reuse("talking", 6, 6)
    assert reuse_of("done", [], KNOWN, 60) == Reuse("done", 0, 0)


def test_of_a_prompt_that_was_given_up_only_what_had_been_computed_is_expected() -> None:
    held = [*KNOWN[:30], -1, -1]
    assert reuse_of("prefilling", held, KNOWN, 30) == Reuse("prefilling", 20, 0)
    assert reuse_of("prefilling", held, KNOWN, 20) == Reuse("prefilling", 30, 10)


@pytest.mark.parametrize(("worst", "passed"), [(3, True), (4, False)])
def test_no_turn_may_compute_more_again_than_the_bound(worst: int, *, passed: bool) -> None:
    proof = reused([Reuse("talking", 0, 0), Reuse("prefilling", 40 + worst, worst, at_once=True)])
    assert proof.passed is passed
    assert proof.figures["never_computed_most"] == {"at_once": 40, "after_words": 0}
    assert _SHOWN[proof.name](proof.figures) == f"{worst} tokens at most over 2 turns"
