"""Generated calls are repeatable, different from each other, and sound like questions to an insurance."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.errors import InvalidRequestError
from voice_llm.simulator import make_scripts

pytestmark = pytest.mark.unit


def test_a_seed_makes_the_same_calls_again_and_another_seed_others() -> None:
    assert make_scripts(7, 6) == make_scripts(7, 6)
    assert make_scripts(7, 6) != make_scripts(8, 6)


def test_a_call_does_not_depend_on_how_many_are_made() -> None:
    assert make_scripts(7, 3) == make_scripts(7, 30)[:3]


def test_calls_share_the_system_prompt_and_nothing_else() -> None:
    scripts = make_scripts(1, 200)
    assert len({script.system_prompt for script in scripts}) == 1
    assert len({script.rag_context for script in scripts}) == 200
    assert len({script.turns for script in scripts}) == 200


@given(seed=st.integers(0, 10_000), turns=st.integers(1, 25))
def test_questions_have_8_to_25_words_and_no_field_is_left_open(seed: int, turns: int) -> None:
    for script in make_scripts(seed, 2, turns=turns):
        assert len(script.turns) == turns
        for turn in script.turns:
            assert 8 <= len(turn.text.split()) <= 25, turn.text
            assert turn.text.endswith("?")
            assert turn.text[0].isupper()
        said = "\n".join([script.rag_context or "", *(turn.text for turn in script.turns)])
        assert not re.search(r"[{}]", said)


def test_a_question_comes_again_only_after_all_the_others() -> None:
    (script,) = make_scripts(3, 1, turns=10, languages=("en",))
    endings = {turn.text.split()[-1] for turn in script.turns}
    assert len(endings) >= 8


def test_english_and_turkish_calls_take_turns() -> None:
    scripts = make_scripts(5, 4)
    assert ["Konut Plus" in (script.rag_context or "") for script in scripts] == [False, True, False, True]
    (turkish,) = make_scripts(5, 1, languages=("tr",))
    assert "Konut Plus" in (turkish.rag_context or "")


def test_a_turkish_question_that_begins_with_a_dotted_letter_keeps_its_dot() -> None:
    first_words = {turn.text.split()[0] for script in make_scripts(1, 50, languages=("tr",)) for turn in script.turns}
    assert "İkinci" in first_words
    assert "Ikinci" not in first_words


def test_fields_of_the_script_can_be_fixed_for_all() -> None:
    scripts = make_scripts(5, 3, system_prompt="Kısa konuş.", think_s=0, hang_up_after_turn=1)
    assert {(s.system_prompt, s.think_s, s.hang_up_after_turn) for s in scripts} == {("Kısa konuş.", 0, 1)}


@pytest.mark.parametrize("languages", [(), ("en", "fr")])
def test_an_unknown_language_is_refused(languages: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequestError, match="en, tr"):
        make_scripts(1, 1, languages=languages)


def test_a_call_without_turns_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="turn"):
        make_scripts(1, 1, turns=0)
