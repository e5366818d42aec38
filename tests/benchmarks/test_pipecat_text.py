from __future__ import annotations

import sys
from typing import Any

import pytest

from benchmarks import pipecat_text
from benchmarks.pipecat_text import proofs, summary

pytestmark = pytest.mark.unit


def _round(*first_text_ms: float, computed_tokens: int = 20) -> list[dict[str, Any]]:
    return [
        {"first_text_ms": value, "prompt_tokens": 500, "cached_tokens": 500 - computed_tokens, "reply": "Yes."}
        for value in first_text_ms
    ]


def _result(ours_ms: float, transcripts_ms: float) -> dict[str, Any]:
    return summary(
        {
            "stock": [_round(90, 100), _round(110, 100)],
            "voice_llm": [_round(ours_ms, ours_ms), _round(ours_ms, ours_ms)],
            "voice_llm_transcripts": [_round(transcripts_ms, transcripts_ms), _round(transcripts_ms, transcripts_ms)],
        }
    )


def test_the_ratio_is_that_of_the_medians_over_all_rounds() -> None:
    result = summary({"stock": [_round(90, 100), _round(110, 1000)], "voice_llm": [_round(21, 42), _round(10, 63)]})
    ours = result["arms"]["voice_llm"]
    assert result["arms"]["stock"]["first_text_p50_ms"] == 105.0
    assert ours["first_text_p50_ms"] == 31.5
    assert ours["ratio"] == 0.3
    assert ours["ratio_by_round"] == [round(31.5 / 95, 3), round(36.5 / 555, 3)]
    assert ours["first_text_ms"] == [21, 42, 10, 63]


def test_the_tokens_left_to_compute_are_those_that_were_not_cached() -> None:
    result = summary({"stock": [_round(100, computed_tokens=26)], "voice_llm": [_round(50, computed_tokens=1)]})
    assert result["arms"]["stock"]["computed_tokens_p50"] == 26
    assert result["arms"]["voice_llm"]["computed_tokens_p50"] == 1


@pytest.mark.parametrize(
    ("ours_ms", "transcripts_ms", "passed"),
    [(100.0, 33.0, [True, True]), (101.0, 33.0, [False, True]), (100.0, 34.0, [True, False])],
)
def test_without_transcripts_the_stock_bot_is_the_bound_and_with_them_a_third_of_it(
    ours_ms: float, transcripts_ms: float, passed: list[bool]
) -> None:
    assert [proof.passed for proof in proofs(_result(ours_ms, transcripts_ms))] == passed


def test_a_bot_that_fails_is_an_error_with_what_it_wrote() -> None:
    command = [sys.executable, "-c", "import sys; print('{\"first_text_ms\": 1.0}'); sys.exit('out of memory')"]
    heard: list[int] = []
    with pytest.raises(RuntimeError, match="out of memory"):
        pipecat_text._read_turns(command, lambda: heard.append(1))
    assert heard == [1]


def test_a_turn_without_text_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="failed"):
        pipecat_text._read_turns([sys.executable, "-c", "print('{\"first_text_ms\": null}')"], lambda: None)
