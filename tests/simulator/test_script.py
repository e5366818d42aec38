"""A script says what is spoken and how long it takes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from voice_llm.errors import InvalidRequestError
from voice_llm.simulator import CallerTurn, CallScript
from voice_llm.simulator.speaking import Speaking

pytestmark = pytest.mark.unit

TURNS = (CallerTurn("one"), CallerTurn("two"), CallerTurn("three"))


def speaking(turn: CallerTurn | str, **script: Any) -> Speaking:
    turn = CallerTurn(turn) if isinstance(turn, str) else turn
    return Speaking(turn, CallScript(turns=(turn,), **script), random.Random(1))


def test_speaking_takes_a_minute_for_as_many_words_as_are_spoken_in_one() -> None:
    assert speaking(" bir  iki\nüç dört ", speaking_wpm=120).lasts_s == pytest.approx(2.0)


def test_pauses_lengthen_what_is_said_and_delay_the_words_after_them() -> None:
    turn = CallerTurn("a b c d e f g", pauses=((2, 1.5),))
    assert speaking(turn, speaking_wpm=60).lasts_s == pytest.approx(8.5)
    assert [time_s for time_s, _ in speaking(turn, speaking_wpm=60).partials()] == pytest.approx([4.5, 7.5])


def test_silence_lasts_as_long_as_it_is_told_to() -> None:
    assert speaking(CallerTurn(silence_s=3.0)).lasts_s == 3.0
    assert speaking(CallerTurn(silence_s=3.0)).partials() == []


def test_partials_grow_by_words_and_never_hold_the_whole() -> None:
    def texts(text: str) -> list[str]:
        return [partial for _, partial in speaking(text).partials()]

    assert texts("bir iki  üç dört beş altı yedi") == ["bir iki  üç", "bir iki  üç dört beş altı"]
    assert texts("bir iki üç dört beş altı") == ["bir iki üç"]
    assert texts("evet") == []


def test_partials_of_the_script_come_as_their_words_are_said() -> None:
    turn = CallerTurn("we are two people", partials=("we are", "we are too", "we are two people"))
    assert speaking(turn, speaking_wpm=60).partials() == [
        (2.0, "we are"),
        (3.0, "we are too"),
        (4.0, "we are two people"),
    ]


def test_misheard_words_are_the_last_of_a_report_and_corrected_by_the_next() -> None:
    said = "a b c d e f g h i j k l m n o p q r s t u v w x y z"
    wrong = speaking(said, mishears=1.0).partials()
    right = speaking(said).partials()
    for (wrong_s, misheard), (right_s, heard) in zip(wrong, right, strict=True):
        assert wrong_s == right_s
        assert misheard != heard
        assert misheard.split()[:-1] == heard.split()[:-1]


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
