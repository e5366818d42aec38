"""Rounds are pooled over their turns, and a system holds as many calls as met the bound."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench.results import Capacity, Pooled, capacity, pool, read, write

from .bench_points import ABOUT, late, point

pytestmark = pytest.mark.unit


def test_rounds_are_pooled_by_turn_and_not_by_their_percentiles() -> None:
    rounds = [late(200, round_=0), late(900, round_=1), late(200, round_=2)]
    (pooled,) = pool(rounds)
    assert (pooled.turns, pooled.ms("first_speech_ms", 50), pooled.ms("first_speech_ms", 95)) == (300, 200, 900)
    assert pooled.summary()["first_speech_ms_p95_by_round"] == [200, 900, 200]


def test_points_are_grouped_by_system_in_their_order_and_by_calls_upwards() -> None:
    points = [point("b", 4), point("a", 2), point("b", 2), point("a", 2, 1)]
    assert [(p.system, p.calls, len(p.points)) for p in pool(points)] == [("b", 2, 1), ("b", 4, 1), ("a", 2, 2)]


def test_summary_has_rates_over_all_rounds() -> None:
    rounds = [
        point(computed_tokens=12_000.0),
        point(round_=1, completion_tokens=8_000, cpu_s=50.0, computed_tokens=8e3),
    ]
    summary = pool(rounds)[0].summary()
    assert summary["tokens_per_s"] == 60
    assert summary["cpu_s_a_call"] == 200 / 200 * 6
    assert (summary["prompt_tokens"], summary["reused_tokens"]) == (100_000, 80_000)
    assert (summary["computed_in_turns"], summary["computed_tokens"]) == (20_000, 20_000)


def test_computed_tokens_are_unknown_where_a_round_does_not_tell() -> None:
    assert pool([point(computed_tokens=5.0), point(round_=1)])[0].summary()["computed_tokens"] is None


@pytest.mark.parametrize(
    ("gaps", "errors", "meets"), [(1, 0, True), (2, 0, False), (0, 1, True), (0, 2, False)], ids=str
)
def test_objective_allows_gaps_and_errors_in_one_turn_of_a_hundred(gaps: int, errors: int, meets: bool) -> None:
    found = point(gap_s=(0.5,) * gaps + (0.0,) * (100 - gaps), errors={"target": errors} if errors else {})
    assert Pooled((found,)).meets(1000) is meets


def test_point_without_any_speech_meets_no_bound_and_misses_clearly() -> None:
    silent = Pooled((point(first_token_ms=(), first_speech_ms=(), gap_s=(), errors={"at_capacity": 100}),))
    assert not silent.meets(1e9)
    assert silent.misses_clearly(1000)


@pytest.mark.parametrize(
    ("found", "clearly"),
    [
        (late(1999), False),
        (late(2001), True),
        (point(gap_s=(1.0,) * 10 + (0.0,) * 90), False),
        (point(gap_s=(1.0,) * 11 + (0.0,) * 89), True),
        (point(errors={"target": 11}), True),
    ],
)
def test_miss_is_clear_at_twice_the_objective_or_with_broken_replies(found: object, clearly: bool) -> None:
    assert Pooled((found,)).misses_clearly(1000) is clearly  # type: ignore[arg-type]


def test_capacity_is_the_largest_number_of_calls_that_met_the_bound() -> None:
    pooled = pool([late(300, calls=2), late(800, calls=4), late(700, calls=8), late(1500, calls=16)])
    assert capacity(pooled, 1000) == Capacity(8, more=False)
    assert capacity(pooled, 500) == Capacity(2, more=False)
    assert capacity(pooled, 200) == Capacity(0, more=False)
    assert str(capacity(pooled, 2000)) == "16 or more"


def test_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    points = [point("ours", clause_ms=(3.0,), computed_tokens=7.0), late(3000, system="peer", errors={"target": 3})]
    stopped = [{"system": "peer", "round": 0, "not_measured": [4]}]
    write(tmp_path / "bench.json", ABOUT, points, stopped)
    result, found = read(tmp_path / "bench.json")
    assert found == points
    assert result["capacity"]["ours"]["1000"] == {"calls": 2, "more": True}
    assert result["capacity"]["peer"]["4000"] == {"calls": 0, "more": False}
    assert set(result["capacity"]["ours"]) == {"500", "1000", "1500", "2000", "3000", "4000"}
    assert result["stopped"] == stopped
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
