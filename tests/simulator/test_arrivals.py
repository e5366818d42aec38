"""Callers dial at the rate that was asked for, and at the same moments each time."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.errors import ConfigError
from voice_llm.simulator.arrivals import parse_arrivals

pytestmark = pytest.mark.unit

HOUR_S = 3600.0
KINDS = ["poisson:30", "ramp:0:60", "ramp:60:5", "bursts:7:45", "spread:500"]


def times(text: str, *, seed: int = 0, duration_s: float = HOUR_S) -> list[float]:
    return list(parse_arrivals(text).times(seed, duration_s))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("text", "calls"), [("poisson:20", 1200), ("poisson:0.5", 30), ("ramp:0:40", 1200), ("ramp:30:10", 1200)]
)
def test_as_many_dial_as_the_rate_says_within_what_chance_allows(text: str, calls: int, seed: int) -> None:
    assert len(times(text, seed=seed)) == pytest.approx(calls, abs=4 * math.sqrt(calls))


def test_pauses_between_calls_at_a_steady_rate_are_as_irregular_as_people_are() -> None:
    pauses = [later - earlier for earlier, later in pairwise(times("poisson:60", duration_s=10 * HOUR_S))]
    mean = sum(pauses) / len(pauses)
    deviation = math.sqrt(sum((pause - mean) ** 2 for pause in pauses) / len(pauses))
    assert mean == pytest.approx(1.0, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)


def test_a_ramp_grows_over_the_run_and_may_also_fall() -> None:
    for text, quarters in (("ramp:0:80", (150, 450, 750, 1050)), ("ramp:80:0", (1050, 750, 450, 150))):
        dialled = times(text)
        for number, calls in enumerate(quarters):
            begin = number * HOUR_S / 4
            found = sum(begin <= time < begin + HOUR_S / 4 for time in dialled)
            assert found == pytest.approx(calls, abs=4 * math.sqrt(calls))


def test_bursts_dial_at_once_again_and_again() -> None:
    assert times("bursts:3:60", duration_s=121) == [0, 0, 0, 60, 60, 60, 120, 120, 120]
    assert times("bursts:2:0.5", duration_s=1) == [0, 0, 0.5, 0.5]


def test_spread_dials_exactly_so_often_all_over_the_run() -> None:
    dialled = times("spread:1000")
    assert len(dialled) == 1000
    assert sum(dialled) / 1000 == pytest.approx(HOUR_S / 2, rel=0.05)


@given(st.sampled_from(KINDS), st.integers(0, 1000), st.floats(0.1, 300))
def test_moments_are_in_order_within_the_run_and_the_same_for_the_same_seed(
    text: str, seed: int, duration_s: float
) -> None:
    dialled = times(text, seed=seed, duration_s=duration_s)
    assert dialled == sorted(dialled)
    assert all(0 <= time < duration_s for time in dialled)
    assert times(text, seed=seed, duration_s=duration_s) == dialled


@pytest.mark.parametrize("text", ["poisson:30", "ramp:0:60", "spread:500"])
def test_another_seed_gives_other_moments(text: str) -> None:
    assert times(text, seed=1) != times(text, seed=2)


def test_arrivals_say_how_they_were_asked_for() -> None:
    assert parse_arrivals("ramp:2:30").text == "ramp:2:30"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "often",
        "poisson",
        "poisson:",
        "poisson:many",
        "poisson:0",
        "spread:inf",
        "bursts:inf:1",
        "poisson:-1",
        "poisson:nan",
        "poisson:inf",
        "poisson:1:2",
        "poison:12",
        "ramp:1",
        "ramp:0:0",
        "ramp:-1:5",
        "bursts:0:10",
        "bursts:2.5:10",
        "bursts:3:0",
        "bursts:3",
        "spread:0",
        "spread:0.5",
        "spread:1e9",
    ],
)
def test_what_cannot_be_read_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_arrivals(text)
    assert refused.value.param == "arrivals"
    assert repr(text) in str(refused.value)
    for kind in ("poisson:", "ramp:", "bursts:", "spread:"):
        assert kind in str(refused.value)
