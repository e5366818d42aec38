"""Results refuse impossible times and summarise what they hold."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from voice_llm.events import Usage
from voice_llm.simulator import CallResult, RunResult, TurnResult

pytestmark = pytest.mark.unit

TURN = TurnResult(
    call_id="a", turn=0, asked_s=2.0, first_token_ms=100, first_speech_ms=300, total_ms=500, text="Evet, tabii."
)
CALL = CallResult(call_id="a", started_s=1.0, ended_s=5.0, turns=(TURN, replace(TURN, turn=1, asked_s=3.0)))


@pytest.mark.parametrize(
    "change",
    [
        {"first_token_ms": -1},
        {"first_token_ms": 301},
        {"first_speech_ms": 501},
        {"first_token_ms": None},
        {"first_token_ms": None, "first_speech_ms": None},
        {"total_ms": float("nan")},
        {"gaps": 1},
        {"gap_s": 0.5},
        {"gaps": -1},
    ],
)
def test_a_turn_with_impossible_figures_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a, turn 0"):
        replace(TURN, **change)


def test_a_turn_that_failed_before_any_text_has_a_total_only() -> None:
    failed = TurnResult(call_id="a", turn=0, asked_s=2.0, total_ms=500, error="at_capacity: no")
    assert failed.ended_s == pytest.approx(2.5)


@pytest.mark.parametrize(
    "change",
    [
        {"ended_s": 3.4},
        {"started_s": 2.1},
        {"turns": (TURN, replace(TURN, turn=1, asked_s=2.4))},
        {"turns": (TURN, replace(TURN, asked_s=3.0))},
        {"call_id": "b"},
    ],
)
def test_a_call_with_turns_out_of_order_or_of_another_call_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^[ab]"):
        replace(CALL, **change)


def make_run() -> RunResult:
    other = CallResult(
        call_id="b",
        started_s=1.0,
        ended_s=9.0,
        turns=(
            TurnResult(call_id="b", turn=0, asked_s=2.0, total_ms=50, usage=Usage(10, 0, 1)),
            TurnResult(
                call_id="b",
                turn=1,
                asked_s=3.0,
                first_token_ms=200,
                first_speech_ms=900,
                total_ms=1500,
                gaps=2,
                gap_s=0.75,
                text="Yes.",
                usage=Usage(20, 10, 4),
            ),
            TurnResult(call_id="b", turn=2, asked_s=5.0, first_token_ms=3000, total_ms=4000, text="I", error="broken"),
        ),
        error="closing failed",
    )
    return RunResult(concurrent=2, wall_s=8.0, calls=(CALL, other))


def test_percentiles_leave_failed_turns_out() -> None:
    run = make_run()
    assert run.first_token_ms is not None
    assert (run.first_token_ms.count, run.first_token_ms.p50) == (3, 100)
    assert run.first_speech_ms is not None
    assert run.first_speech_ms.p95 == pytest.approx(840)
    assert run.total_ms is not None
    assert run.total_ms.count == 4
    assert run.errors == ("broken", "closing failed")


def test_a_run_as_json_has_its_summary_and_each_turn() -> None:
    written = json.loads(json.dumps(make_run().to_json(), allow_nan=False))
    assert {k: v for k, v in written["summary"].items() if not k.endswith("_ms")} == {
        "calls": 2,
        "turns": 5,
        "errors": 2,
        "silent_turns": 1,
        "turns_with_gaps": 1,
        "gap_s": 0.75,
        "usage": {"prompt_tokens": 30, "cached_tokens": 10, "completion_tokens": 5},
    }
    assert written["summary"]["first_token_ms"]["count"] == 3
    assert (written["concurrent"], written["wall_s"]) == (2, 8.0)
    assert written["calls"][0]["turns"][1]["text"] == "Evet, tabii."
    assert written["calls"][1]["turns"][1]["usage"]["cached_tokens"] == 10


def test_a_run_without_answers_has_no_percentiles() -> None:
    run = RunResult(concurrent=1, wall_s=0.0, calls=())
    assert (run.first_token_ms, run.first_speech_ms, run.total_ms) == (None, None, None)
    assert run.to_json()["summary"]["total_ms"] is None
