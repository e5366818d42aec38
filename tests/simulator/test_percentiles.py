"""Percentiles by linear interpolation."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.simulator import Percentiles, percentile

pytestmark = pytest.mark.unit

FIGURES = st.lists(st.floats(0, 1e6), min_size=2, max_size=50)


def test_a_percentile_lies_between_the_closest_ranks() -> None:
    assert percentile([40, 10, 30, 20], 50) == pytest.approx(25)
    assert percentile([10, 20], 95) == pytest.approx(19.5)
    assert percentile([7], 99) == 7


@given(FIGURES)
def test_it_agrees_with_the_standard_library(figures: list[float]) -> None:
    expected = statistics.quantiles(figures, n=100, method="inclusive")
    assert [percentile(figures, p) for p in (50, 95, 99)] == pytest.approx([expected[p - 1] for p in (50, 95, 99)])


def test_a_summary_counts_what_is_there_and_is_none_without_values() -> None:
    summary = Percentiles.of([1.0, None, 3.0])
    assert summary is not None
    assert [summary.count, summary.p50, summary.p95, summary.p99] == pytest.approx([2, 2.0, 2.9, 2.98])
    assert Percentiles.of([None]) is None
