from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.prompt import TurnTokens, first_kept_turn

pytestmark = pytest.mark.unit

SIZES = st.tuples(st.integers(1, 40), st.integers(0, 60)).map(lambda size: TurnTokens(size[0], size[0] + size[1]))


def asked(turns: list[TurnTokens]) -> list[TurnTokens]:
    """The turns when the last one is still to be answered."""
    return [*turns[:-1], TurnTokens(turns[-1].question, turns[-1].question)]


def test_a_short_call_keeps_everything() -> None:
    assert first_kept_turn([TurnTokens(10, 30)] * 4, 100, 1000) == 0


def test_an_over_long_call_drops_to_half_of_the_room_at_once() -> None:
    turns = [TurnTokens(10, 100)] * 8 + [TurnTokens(10, 10)]
    # Room for 900; a question counts as 112 at least, so 8 turns are too many and 3 fit into half of it.
    assert first_kept_turn(turns, 100, 1000) == 5


def test_the_last_turn_stays_even_where_it_does_not_fit() -> None:
    assert first_kept_turn([TurnTokens(10, 20), TurnTokens(5000, 5000)], 100, 1000) == 1
    assert first_kept_turn([TurnTokens(10, 20)], 2000, 1000) == 0


def test_a_growing_call_moves_its_cut_only_now_and_then() -> None:
    turns = [TurnTokens(20, 80)] * 30
    cuts = [first_kept_turn(asked(turns[:count]), 200, 1000) for count in range(1, 31)]
    moves = [later - earlier for earlier, later in pairwise(cuts) if later != earlier]
    assert cuts == sorted(cuts)
    assert len(moves) <= 5
    assert min(moves) >= 4


@given(st.lists(SIZES, min_size=1, max_size=40), st.integers(0, 200))
def test_a_cut_stays_until_the_budget_is_exceeded_again(turns: list[TurnTokens], fixed: int) -> None:
    budget = 400
    before = 0
    for count in range(1, len(turns) + 1):
        start = first_kept_turn(asked(turns[:count]), fixed, budget)
        used = fixed + sum(turn.total for turn in asked(turns[:count])[start:])
        assert used <= budget or start == count - 1
        if start != before:
            room = budget - fixed
            would_use = sum(turn.total for turn in turns[before : count - 1]) + max(
                turns[count - 1].question, room // 8
            )
            assert would_use > room
        before = start


@given(st.lists(SIZES, min_size=1, max_size=40), st.integers(0, 200))
def test_a_question_that_grows_as_it_is_spoken_keeps_the_cut(turns: list[TurnTokens], fixed: int) -> None:
    history, last = turns[:-1], turns[-1].question
    final = first_kept_turn([*history, TurnTokens(last, last)], fixed, 400)
    if last <= (400 - fixed) // 8:
        assert first_kept_turn([*history, TurnTokens(0, 0)], fixed, 400) == final
