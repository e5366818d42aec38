"""Speech: how long the caller's ear is provided for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.engine import Speech

pytestmark = pytest.mark.unit


def speech() -> Speech:
    return Speech(chars_per_s=10.0, target_s=0.8)


def test_chunks_are_heard_one_after_the_other() -> None:
    said = speech()
    assert not said.begun
    said.sent("x" * 20, 5.0)
    slack_s = said.slack_s(5.0)
    assert said.begun
    assert 1.5 <= slack_s <= 2.0  # some of it is the way from text to sound
    said.sent("x" * 10, 6.0)
    assert said.slack_s(5.0) == pytest.approx(slack_s + 1.0)


def test_voice_that_fell_silent_begins_anew_with_the_next_chunk() -> None:
    said = speech()
    said.sent("x" * 10, 0.0)
    first_s = said.slack_s(0.0)
    assert said.slack_s(4.0) < 0
    said.sent("x" * 10, 4.0)
    assert said.slack_s(4.0) == pytest.approx(first_s)


def test_reports_count_and_not_the_estimate() -> None:
    said = speech()
    said.sent("x" * 20, 0.0)
    said.sent("x" * 30, 0.0)
    estimate_s = said.slack_s(1.0)
    said.played(0, 0, 1.0)  # the transport has only begun
    assert said.slack_s(1.0) == pytest.approx(estimate_s + 1.0)
    said.played(1, 2500, 1.5)
    assert said.slack_s(1.5) == pytest.approx(estimate_s - 4.0 + 0.5)
    said.played(1, 60_000, 2.0)
    assert said.slack_s(2.0) <= 0


def test_report_of_a_chunk_that_was_never_sent_changes_nothing() -> None:
    said = speech()
    said.sent("x" * 20, 0.0)
    before_s = said.slack_s(0.0)
    said.played(1, 100, 0.0)
    said.played(-1, 100, 0.0)
    assert said.slack_s(0.0) == before_s


@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 5)), min_size=1, max_size=20))
def test_what_is_heard_lasts_at_least_as_long_as_all_chunks_take(chunks: list[tuple[int, float]]) -> None:
    said, now_s = speech(), 0.0
    ends_s = None
    for chars, pause_s in chunks:
        now_s += pause_s
        said.sent("x" * chars, now_s)
        ends_s = max(now_s, ends_s or now_s) + chars / 10.0
        assert said.slack_s(now_s) <= ends_s - now_s
        assert said.slack_s(now_s) >= ends_s - now_s - 0.5
