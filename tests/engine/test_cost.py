"""CostModel: learns what steps cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_llm.engine import CostModel, DecodeShape

pytestmark = pytest.mark.unit

WEIGHTS = st.just(0.0) | st.floats(0.001, 20.0)
Shapes = Iterable[DecodeShape]


def one_run(rows: int, context: int = 500) -> DecodeShape:
    return DecodeShape(((rows, context),))


def learn(
    cost: CostModel, shapes: Shapes, true_ms: Callable[[int], float], rng: random.Random, *, noise: float = 0.1
) -> None:
    """Teach steps whose runs take ``true_ms(rows)`` and 1 ms for 1,000 rows x tokens; one of 20 is delayed by much."""
    for shape in shapes:
        ms = sum(true_ms(rows) + rows * context * 1e-3 for rows, context in shape.runs)
        delay = rng.choice((2.0, 10.0)) if rng.random() < 1 / 20 else 1.0
        cost.observe_decode(shape, ms * rng.uniform(1 - noise, 1 + noise) * delay)


@pytest.mark.parametrize(
    ("contexts", "split_kv", "shape"),
    [
        ([(0, 10), (1, 30), (2, 20)], True, DecodeShape(((3, 30),))),
        ([(0, 10), (2, 30)], True, DecodeShape(((1, 10), (1, 30)))),
        ([(3, 5), (4, 50), (9, 7)], True, DecodeShape(((2, 50), (1, 7)))),
        ([(0, 10), (2, 30)], False, DecodeShape(((2, 40),))),
        ([(5, 12)], True, DecodeShape(((1, 12),))),
    ],
)
def test_shape_counts_runs_of_adjacent_sequences_at_their_longest_context(
    contexts: list[tuple[int, int]], split_kv: bool, shape: DecodeShape
) -> None:
    assert DecodeShape.of(contexts, split_kv=split_kv) == shape


def test_shape_of_nothing_is_free() -> None:
    for split_kv in (True, False):
        shape = DecodeShape.of([], split_kv=split_kv)
        assert (shape.micro_batches, shape.rows, CostModel().decode_ms(shape)) == (0, 0, 0.0)


def test_shape_sums_its_runs() -> None:
    shape = DecodeShape(((2, 50), (1, 7)))
    assert (shape.micro_batches, shape.rows, shape.row_context) == (2, 3, 107)


@given(st.lists(WEIGHTS, min_size=3, max_size=3), st.floats(0, 300), st.integers(0, 8000))
def test_prefill_tokens_are_as_many_as_fit_and_not_one_more(
    weights: list[float], budget_ms: float, context: int
) -> None:
    cost = CostModel()
    cost.prefill.weights = [weights[0], weights[1] + 0.01, weights[2]]
    tokens = cost.prefill_tokens(budget_ms, context)
    if tokens:
        assert cost.prefill_ms(tokens, context) <= budget_ms * (1 + 1e-6) + 1e-6
    assert cost.prefill_ms(tokens + 1, context) > budget_ms * (1 - 1e-6) - 1e-6


def test_longer_contexts_leave_room_for_fewer_tokens() -> None:
    cost = CostModel()
    assert cost.prefill_tokens(100, 0) > cost.prefill_tokens(100, 4000) > 0
    assert cost.prefill_tokens(1, 0) == 0


def test_model_learns_decode_and_prefill_apart() -> None:
    cost = CostModel()
    for _ in range(50):
        for rows in (1, 2, 4, 8):
            cost.observe_decode(one_run(rows), 10 + rows)
            cost.observe_prefill(16 * rows, 0, 3 + 16 * rows * 0.5)
    assert cost.decode_ms(one_run(6)) == pytest.approx(16, rel=0.03)
    assert cost.prefill_ms(48, 0) == pytest.approx(27, rel=0.03)
    assert repr(cost).startswith("<CostModel [decode ms: ")


@given(st.lists(WEIGHTS, min_size=3, max_size=3), st.floats(0, 300), st.floats(0, 300), st.integers(0, 8000))
def test_a_larger_budget_never_holds_fewer_tokens(
    weights: list[float], budget_ms: float, more_ms: float, context: int
) -> None:
    cost = CostModel()
    cost.prefill.weights = [weights[0], weights[1] + 0.01, weights[2]]
    assert 0 <= cost.prefill_tokens(budget_ms, context) <= cost.prefill_tokens(budget_ms + more_ms, context)


RUNS = st.lists(st.tuples(st.integers(1, 64), st.integers(0, 8000)), min_size=1, max_size=8)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(RUNS, st.floats(0, 1e4)), max_size=60))
def test_decode_is_never_negative_whatever_was_observed(steps: list[tuple[list[tuple[int, int]], float]]) -> None:
    cost = CostModel()
    for runs, ms in steps:
        cost.observe_decode(DecodeShape(tuple(runs)), ms)
        assert cost.decode_ms(DecodeShape(tuple(runs))) >= 0
    assert all(cost.decode_ms(one_run(rows)) >= 0 for rows in range(1, 65))


def odd_at_5(rows: int) -> float:
    return 6 + 3 * (8 if rows == 5 else rows)


def even(rows: int) -> float:
    return 6 + 3.0 * rows


@pytest.mark.parametrize("seed", range(10))
def test_odd_size_is_learned_from_thirty_noisy_steps_and_forgotten_when_it_is_gone(seed: int) -> None:
    rng = random.Random(seed)
    cost = CostModel()
    learn(cost, [one_run(rows) for _ in range(12) for rows in (1, 2, 3, 4, 6, 7, 8)], even, rng, noise=0.05)
    assert cost.decode_ms(one_run(5)) == pytest.approx(even(5) + 2.5, rel=0.15)
    assert cost.best_rows(5, 500) == 5
    learn(cost, [one_run(5)] * 30, odd_at_5, rng, noise=0.05)
    assert cost.decode_ms(one_run(5)) == pytest.approx(odd_at_5(5) + 2.5, rel=0.12)
    for rows in (1, 2, 4, 8):  # the others are not drawn along
        assert cost.decode_ms(one_run(rows)) == pytest.approx(even(rows) + rows * 0.5, rel=0.27)
    assert cost.best_rows(5, 500) < 5
    learn(cost, [one_run(rows) for _ in range(40) for rows in (1, 4, 5, 8)], even, rng, noise=0.05)
    assert cost.decode_ms(one_run(5)) == pytest.approx(even(5) + 2.5, rel=0.12)
    assert cost.best_rows(5, 500) == 5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pace", [0.3, 3.0])
def test_machine_that_changes_its_pace_is_followed_also_at_sizes_that_are_not_seen(seed: int, pace: float) -> None:
    rng = random.Random(seed)
    cost = CostModel()
    sizes = [one_run(rows, 0) for rows in range(1, 9)]
    learn(cost, sizes * 20, odd_at_5, rng)
    learn(cost, [shape for shape in sizes if shape.rows != 5] * 40, lambda rows: pace * odd_at_5(rows), rng)
    for rows in (1, 4, 8):
        assert cost.decode_ms(one_run(rows, 0)) == pytest.approx(pace * odd_at_5(rows), rel=0.25)
    old_ms, new_ms = odd_at_5(5), pace * odd_at_5(5)
    assert abs(cost.decode_ms(one_run(5, 0)) - new_ms) < abs(old_ms - new_ms) / 2


def test_size_that_is_avoided_is_tried_again_in_time() -> None:
    cost = CostModel()
    rng = random.Random(3)
    learn(cost, [one_run(rows, 0) for rows in range(1, 9)] * 20, odd_at_5, rng)
    assert cost.best_rows(5, 0) == 4
    learn(cost, [one_run(rows, 0) for rows in (1, 2, 3, 4, 6, 7, 8)] * 1000, even, rng)
    assert cost.best_rows(5, 0) == 5


def test_each_micro_batch_pays_for_itself_and_its_own_longest_context() -> None:
    cost = CostModel()
    rng = random.Random(3)
    shapes = [one_run(rows, context) for rows in range(1, 9) for context in (0, 400, 2000)]
    learn(cost, shapes * 12, odd_at_5, rng, noise=0.02)
    apart = DecodeShape(((5, 100), (1, 2000), (3, 900)))
    whole = sum(odd_at_5(rows) + rows * context * 1e-3 for rows, context in apart.runs)
    assert cost.decode_ms(apart) == pytest.approx(whole, rel=0.08)
    assert cost.micro_batch_ms == pytest.approx(6, rel=0.3)


def test_steps_of_unlike_runs_do_not_blur_what_is_known_of_each() -> None:
    cost = CostModel()
    rng = random.Random(3)
    learn(cost, [one_run(rows, 0) for rows in range(1, 9)] * 20, odd_at_5, rng, noise=0.02)
    learn(cost, [DecodeShape(((5, 0), (2, 0)))] * 100, odd_at_5, rng, noise=0.02)
    assert cost.decode_ms(one_run(5, 0)) == pytest.approx(odd_at_5(5), rel=0.05)
    assert cost.decode_ms(one_run(2, 0)) == pytest.approx(odd_at_5(2), rel=0.1)


def test_load_that_stays_at_an_odd_size_does_not_spoil_the_others() -> None:
    cost = CostModel()
    rng = random.Random(3)
    learn(cost, [one_run(rows, 0) for rows in range(1, 9)] * 20, odd_at_5, rng)
    learn(cost, [one_run(5, 0)] * 500, odd_at_5, rng)
    for rows in range(1, 9):
        assert cost.decode_ms(one_run(rows, 0)) == pytest.approx(odd_at_5(rows), rel=0.2)


def test_best_rows_takes_the_most_of_those_that_are_equally_good() -> None:
    cost = CostModel()
    assert [cost.best_rows(most, 100) for most in (1, 2, 7, 64)] == [1, 2, 7, 64]
    rng = random.Random(3)
    learn(cost, [one_run(rows, 0) for rows in range(1, 9)] * 20, lambda rows: 8.0 * rows, rng, noise=0.01)
    assert cost.best_rows(8, 0) == 8


def test_the_longer_the_context_the_less_an_odd_size_matters() -> None:
    cost = CostModel()
    rng = random.Random(3)
    shapes = [one_run(rows, context) for rows in range(1, 9) for context in (0, 400, 2000)]
    learn(cost, shapes * 12, odd_at_5, rng, noise=0.02)
    assert cost.best_rows(5, 0) == 4
    assert cost.best_rows(5, 200_000) == 5


def test_errors_of_decode_and_prefill_are_told_apart() -> None:
    cost = CostModel()
    rng = random.Random(3)
    assert (cost.decode_error, cost.prefill_error) == (0, 0)
    for _ in range(300):
        rows = rng.randint(1, 8)
        cost.observe_decode(one_run(rows), even(rows) * rng.uniform(0.7, 1.3))
        cost.observe_prefill(16 * rows, 0, 3 + 8 * rows)
    assert cost.decode_error == pytest.approx(0.16, abs=0.05)
    assert cost.prefill_error < 0.03
    assert f"error: {cost.decode_error:.0%}, {cost.prefill_error:.0%}" in repr(cost)
