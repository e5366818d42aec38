"""LinearFit and OddSizes: learn what is true from noisy observations, and follow it when it changes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_llm.engine.fits import LinearFit, MovingError

pytestmark = pytest.mark.unit

COSTS = st.floats(0.05, 50.0)


@settings(max_examples=40, deadline=None)
@given(COSTS, COSTS, st.floats(0.05, 50.0), st.integers(0, 2**32))
def test_fit_learns_a_true_linear_cost_from_noisy_samples(a: float, b: float, scale: float, seed: int) -> None:
    rng = random.Random(seed)
    true = [a * scale, b * scale]
    fit = LinearFit([4.0, 4.0])
    for _ in range(400):
        x = [1.0, float(rng.randint(1, 16))]
        fit.observe(x, sum(w * v for w, v in zip(true, x, strict=True)) * rng.uniform(0.95, 1.05))
    # The noise of large steps also blurs what a small one costs, so the bound is a share of a middling one.
    tolerance = 0.05 * (true[0] + true[1] * 8)
    for rows in (1.0, 8.0, 16.0):
        assert fit.predict([1.0, rows]) == pytest.approx(true[0] + true[1] * rows, abs=tolerance)
    assert fit.error < 0.06


@pytest.mark.parametrize("factor", [0.01, 0.1, 10, 100])
def test_a_first_guess_that_is_far_off_is_put_right_within_a_few_steps(factor: float) -> None:
    fit = LinearFit([4.0, 4.0])
    for rows in (1.0, 2.0, 4.0, 8.0):
        fit.observe([1.0, rows], factor * (4 + 4 * rows))
    assert fit.predict([1.0, 16.0]) == pytest.approx(factor * 68, rel=0.02)


def test_fit_follows_a_machine_that_becomes_slower() -> None:
    fit = LinearFit([4.0, 4.0])
    for cost in (1.0, 3.0):
        for i in range(600):
            fit.observe([1.0, float(1 + i % 8)], cost * (1 + i % 8))
    assert fit.predict([1.0, 4.0]) == pytest.approx(12.0, rel=0.05)


def test_one_step_that_took_a_hundred_times_too_long_hardly_moves_the_fit() -> None:
    fit = LinearFit([4.0, 4.0])
    for i in range(100):
        fit.observe([1.0, float(1 + i % 8)], 4.0 + 4.0 * (1 + i % 8))
    fit.observe([1.0, 4.0], 2000.0)
    assert fit.predict([1.0, 4.0]) == pytest.approx(20.0, rel=0.1)


def test_thousands_of_equal_observations_do_not_make_the_fit_unstable() -> None:
    fit = LinearFit([4.0, 4.0, 1.0])
    for _ in range(5000):
        fit.observe([1.0, 1.0, 0.3], 10.0)
    fit.observe([1.0, 8.0, 2.4], 30.0)
    assert fit.predict([1.0, 1.0, 0.3]) == pytest.approx(10.0, rel=0.5)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 1e4)), max_size=60))
def test_prediction_is_never_negative_whatever_was_observed(samples: list[tuple[int, float]]) -> None:
    fit = LinearFit([4.0, 4.0])
    for rows, ms in samples:
        fit.observe([1.0, float(rows)], ms)
        assert fit.predict([1.0, float(rows)]) >= 0
        assert min(fit.weights) >= 0


def test_error_is_a_plain_mean_at_first_and_a_moving_one_later() -> None:
    error = MovingError()
    assert error.value == 0
    for predicted in (11.0, 13.0):
        error.note(predicted, 10.0)
    assert error.value == pytest.approx(0.2)
    for _ in range(200):
        error.note(9.5, 10.0)
    assert error.value == pytest.approx(0.05, rel=0.01)
    error.note(1.0, 0.0)  # a step of no measurable time says nothing
    assert error.value == pytest.approx(0.05, rel=0.01)
