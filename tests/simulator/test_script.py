"""A script says what is spoken and how long it takes."""

from __future__ import annotations

from typing import Any

import pytest

from voice_llm.errors import InvalidRequestError
from voice_llm.simulator import CallerTurn, CallScript

pytestmark = pytest.mark.unit

TURNS = (CallerTurn("one"), CallerTurn("two"), CallerTurn("three"))


def test_speaking_takes_a_minute_for_as_many_words_as_are_spoken_in_one() -> None:
    assert CallScript(turns=TURNS, speaking_wpm=120).speaking_s(" bir  iki\nüç dört ") == pytest.approx(2.0)


def test_partials_grow_by_words_and_never_hold_the_whole() -> None:
    script = CallScript(turns=TURNS)
    text = "bir iki  üç dört beş altı yedi"
    assert script.partials_of(text, 3) == ("bir iki  üç", "bir iki  üç dört beş altı")
    assert script.partials_of("bir iki üç dört beş altı", 3) == ("bir iki üç",)
    assert script.partials_of("evet", 3) == ()


def test_hanging_up_early_leaves_the_rest_unsaid() -> None:
    assert CallScript(turns=TURNS, hang_up_after_turn=2).spoken_turns == TURNS[:2]
    assert CallScript(turns=TURNS, hang_up_after_turn=9).spoken_turns == TURNS
    assert CallScript(turns=TURNS).spoken_turns == TURNS


def test_a_faster_person_does_everything_faster() -> None:
    fast = CallScript(turns=TURNS, speaking_wpm=150, think_s=1, listen_chars_per_s=15).at_speed(10)
    assert (fast.speaking_wpm, fast.think_s, fast.listen_chars_per_s) == (1500, 0.1, 150)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("turns", ()),
        ("speaking_wpm", 0),
        ("speaking_wpm", float("nan")),
        ("listen_chars_per_s", -1),
        ("think_s", -0.1),
        ("think_s", float("inf")),
        ("hang_up_after_turn", 0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    fields: dict[str, Any] = {"turns": TURNS, field: value}
    with pytest.raises(InvalidRequestError) as refused:
        CallScript(**fields)
    assert refused.value.param == field


def test_a_turn_without_words_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        CallerTurn("  ")
