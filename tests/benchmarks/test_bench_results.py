"""Rounds are pooled over their turns, and a system holds as many calls as met the bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench.capacity import Capacity, best, capacity, given_up, ratio
from benchmarks.bench.interval import interval
from benchmarks.bench.points import Point, Pooled, by_system, pool
from benchmarks.bench.results import read, write

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
    ("gaps", "errors", "meets"), [(1, 0, True), (2, 0, False), (0, 1, True), (0, 2, False), (1, 1, False)], ids=str
)
def test_objective_allows_a_gap_or_an_error_in_one_turn_of_a_hundred(gaps: int, errors: int, meets: bool) -> None:
    found = point(gap_s=(0.5,) * gaps + (0.0,) * (100 - gaps), errors={"target": errors} if errors else {})
    assert Pooled((found,)).meets(1000) is meets


def test_turn_that_fails_counts_as_late() -> None:
    spoken = (400.0,) * 189 + (2000.0,) * 10
    fields: dict[str, Any] = {"gap_s": (0.0,) * 199, "first_speech_ms": spoken}
    assert Pooled((point(turns=199, **fields),)).meets(1000)
    failed = Pooled((point(turns=200, errors={"target": 1}, **fields),))
    assert (failed.ms("first_speech_ms", 95) or 0) < 1000
    assert failed.is_smooth
    assert not failed.meets(1000)


def test_replies_without_anything_to_say_are_misses() -> None:
    assert Pooled((point(first_speech_ms=(400.0,) * 99),)).meets(1000)
    assert not Pooled((point(first_speech_ms=(400.0,) * 98),)).meets(1000)


def test_point_without_any_speech_meets_no_bound_and_misses_clearly() -> None:
    silent = Pooled((point(first_token_ms=(), first_speech_ms=(), gap_s=(), errors={"at_capacity": 100}),))
    assert not silent.meets(1e9)
    assert silent.misses_clearly(1e9)


@pytest.mark.parametrize(
    ("found", "clearly"),
    [
        (late(4000), False),
        (late(4001), True),
        (point(gap_s=(1.0,) * 10 + (0.0,) * 90), False),
        (point(gap_s=(1.0,) * 11 + (0.0,) * 89), True),
        (point(errors={"target": 11}), True),
    ],
)
def test_miss_is_clear_beyond_the_bound_or_with_broken_replies(found: Point, clearly: bool) -> None:
    assert Pooled((found,)).misses_clearly(4000) is clearly


def test_capacity_is_the_largest_number_of_calls_that_met_the_bound() -> None:
    pooled = pool([late(300, calls=2), late(800, calls=4), late(700, calls=8), late(1500, calls=16)])
    assert capacity(pooled, 1000) == Capacity(8, more=False)
    assert capacity(pooled, 500) == Capacity(2, more=False)
    assert capacity(pooled, 200) == Capacity(0, more=False)
    assert str(capacity(pooled, 2000)) == "16 or more"


def test_number_that_met_the_bound_beyond_one_that_missed_it_does_not_count() -> None:
    pooled = pool([late(700, calls=8), late(1100, calls=4), late(300, calls=2), late(2000, calls=16)])
    assert capacity(pooled, 1000) == Capacity(2, more=False)
    assert capacity(pooled, 1100) == Capacity(8, more=False)


def test_calls_between_two_measured_numbers_are_not_made_up() -> None:
    pooled = pool([late(999, calls=4), late(1001, calls=8)])
    assert [capacity(pooled, bound_ms).calls for bound_ms in (998, 999, 1000, 1000.9, 1001)] == [0, 4, 4, 4, 8]


def test_calls_with_broken_replies_are_not_held_however_early_they_speak() -> None:
    gaps = point(calls=4, gap_s=(0.5,) * 2 + (0.0,) * 98)
    failures = point(calls=8, errors={"at_capacity": 2})
    assert capacity(pool([point(), gaps, failures]), 4000) == Capacity(2, more=False)


def test_capacity_is_of_all_rounds_together_and_not_of_the_best_one() -> None:
    assert capacity(pool([late(300, round_=0), late(1500, round_=1)]), 1000).calls == 0


@pytest.mark.parametrize(
    ("ours", "peer", "words"),
    [
        (Capacity(12, False), Capacity(4, False), "3.0x"),
        (Capacity(0, False), Capacity(4, False), "0.0x"),
        (Capacity(32, True), Capacity(12, False), "2.7x or more"),
        (Capacity(12, False), Capacity(8, True), "1.5x or less"),
        (Capacity(8, True), Capacity(8, True), "not known"),
        (Capacity(8, False), Capacity(0, False), "none"),
        (Capacity(0, False), Capacity(0, False), "none"),
    ],
    ids=str,
)
def test_ratio_says_which_side_may_hold_more(ours: Capacity, peer: Capacity, words: str) -> None:
    assert ratio(ours, peer) == words


def test_best_is_not_certain_where_another_peer_was_not_measured_as_far() -> None:
    assert ratio(Capacity(16, False), best([Capacity(8, False), Capacity(6, True)])) == "2.0x or less"


def test_best_of_equal_peers_is_the_one_that_may_hold_more() -> None:
    assert best([Capacity(8, False), Capacity(8, True), Capacity(4, True)]) == Capacity(8, True)


def test_given_up_is_what_lies_above_two_clear_misses_in_a_row() -> None:
    rounds = [late(9000, calls=4), late(9000, calls=8), late(9000, calls=4, round_=1), late(300, calls=8, round_=1)]
    assert given_up(rounds, [2, 4, 8, 12, 16], 4000) == [{"system": "ours", "round": 0, "not_measured": [12, 16]}]


def test_interval_holds_the_percentile_narrows_with_turns_and_is_the_same_each_time() -> None:
    few, many = ([float(n * 1000 // count) for n in range(count)] for count in (50, 2000))
    (low, high), (low_many, high_many) = interval(few, 95) or (0, 0), interval(many, 95) or (0, 0)
    assert low < 950 < high
    assert low_many < 950 < high_many
    # The standard error of this quantile of uniform values is 1000 * sqrt(0.95 * 0.05 / n): 4.9 of 2,000.
    assert 15 < high_many - low_many < 25 < high - low
    assert interval(many, 95) == (low_many, high_many)
    assert interval([], 95) is None
    assert interval([7.0], 95) == (7.0, 7.0)


def test_systems_come_in_the_order_that_is_asked_for_however_they_were_measured() -> None:
    points = [point("c"), point("b"), point("a")]
    assert list(by_system(points, ["a", "b", "d"])) == ["a", "b", "c"]


def test_rounds_are_told_in_their_order_however_they_were_measured() -> None:
    (pooled,) = pool([late(200, round_=1), late(900, round_=0)])
    assert pooled.summary()["first_speech_ms_p95_by_round"] == [900, 200]


def test_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    points = [
        point("ours", clause_ms=(3.0,), computed_tokens=7.0, commit="abc1234-dirty"),
        late(5000, system="peer", errors={"target": 3}),
        late(5000, system="peer", calls=4),
    ]
    write(tmp_path / "bench.json", {**ABOUT, "calls": [2, 4, 8]}, points)
    result, found = read(tmp_path / "bench.json")
    assert found == points
    assert result["capacity"]["ours"]["1000"] == {"calls": 2, "more": True}
    assert result["capacity"]["peer"]["4000"] == {"calls": 0, "more": False}
    assert set(result["capacity"]["ours"]) == {"500", "1000", "1500", "2000", "3000", "4000"}
    assert result["stopped"] == [{"system": "peer", "round": 0, "not_measured": [8]}]
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    write(tmp_path / "bench.json", {**ABOUT, "calls": [2, 4, 8], "full": True}, points)
    assert read(tmp_path / "bench.json")[0]["stopped"] == []
