"""Invented facts are found, and facts are not taken for inventions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from voice_llm.errors import ConfigError
from voice_llm.simulator import OpenAITarget
from voice_llm.simulator.groundedness import GroundedQuestion, Grounding, Scores, ask_all, load_questions, score

pytestmark = pytest.mark.unit

FACTS = ("The excess is 150 euros.", "The plumber comes on Wednesday between 9 and 13 o'clock.", "Anna Weber answers.")


def question(kind: str = "answerable", **fields: str | None) -> GroundedQuestion:
    values: dict[str, str | None] = {"answer": "150" if kind != "absent" else None, "claim": None}
    return GroundedQuestion(
        id="q",
        language="en",
        facts=FACTS,
        question="How much is the excess of my policy, 100 euros?",
        kind=kind,  # type: ignore[arg-type]
        **(values | fields),
    )


@pytest.mark.parametrize(
    ("text", "grounding"),
    [
        ("It is 150 euros.", Grounding.RIGHT),
        ("It's 150 €, and the plumber comes on Wednesday.", Grounding.RIGHT),
        ("Anna Weber says it is 150.", Grounding.RIGHT),
        ("I do not know, a colleague will call you back.", Grounding.DECLINED),
        ("That depends on your policy.", Grounding.WRONG),
        ("", Grounding.WRONG),
        ("It is 250 euros.", Grounding.INVENTED),
        ("It is 150 euros, payable by Friday.", Grounding.INVENTED),
        ("It is 150 euros, says Peter Miller.", Grounding.INVENTED),
        ("It is 150 euros, at 14:30.", Grounding.INVENTED),
    ],
)
def test_reply_to_what_the_facts_answer(text: str, grounding: Grounding) -> None:
    assert score(question(), text).grounding is grounding


@pytest.mark.parametrize(
    ("text", "grounding"),
    [
        ("I don't know that, sorry.", Grounding.RIGHT),
        ("A colleague will call you back about it.", Grounding.RIGHT),
        ("Yes, of course it is included.", Grounding.INVENTED),
    ],
)
def test_reply_to_what_the_facts_do_not_say(text: str, grounding: Grounding) -> None:
    assert score(question("absent"), text).grounding is grounding


@pytest.mark.parametrize(
    ("text", "grounding"),
    [
        ("No, it is 150 euros.", Grounding.RIGHT),
        ("Yes, that is right.", Grounding.INVENTED),
        ("Yes, 100 euros.", Grounding.INVENTED),
        ("I am not sure.", Grounding.DECLINED),
    ],
)
def test_reply_to_a_false_claim(text: str, grounding: Grounding) -> None:
    assert score(question("contradicted", claim="yes|right"), text).grounding is grounding


@pytest.mark.parametrize("text", ["It is 15 euros.", "It is 1 euro.", "It is 1500 euros."])
def test_part_of_a_number_is_another_number(text: str) -> None:
    assert score(question(), text).grounding is Grounding.INVENTED


async def test_target_that_is_down_is_no_target_that_invents_nothing() -> None:
    async with OpenAITarget("http://127.0.0.1:9/v1", "none") as target:
        scores = await ask_all(target, [question()])
    assert scores.failed == 1


def test_why_names_what_is_invented() -> None:
    assert "250" in score(question(), "It is 250 euros.").why


def test_turkish_capitals_and_endings_do_not_make_an_invention() -> None:
    asked = GroundedQuestion(
        id="q",
        language="tr",
        facts=("İstanbul otobüsü saat 10.30'da 4 numaralı perondan kalkar.",),
        question="Istanbul otobüsü kaçta?",
        kind="answerable",
        answer="10[.:]30",
    )
    assert score(asked, "İstanbul'a giden otobüs saat 10.30'da kalkıyor.").grounding is Grounding.RIGHT
    assert score(asked, "Otobüs saat 11.45'te kalkıyor.").grounding is Grounding.INVENTED


def test_forty_questions_in_two_languages_and_of_three_kinds_are_built_in() -> None:
    questions = load_questions()
    assert len(questions) == 40
    assert len({q.id for q in questions}) == 40
    for language in ("en", "tr"):
        assert {q.kind for q in questions if q.language == language} == {"answerable", "absent", "contradicted"}


@pytest.mark.parametrize("asked", [q for q in load_questions() if q.kind == "answerable"], ids=lambda q: q.id)
def test_facts_themselves_answer_each_answerable_question(asked: GroundedQuestion) -> None:
    """So the answer that a file names can be found in its facts, and the facts are no invention."""
    assert asked.answer is not None
    found = [score(asked, fact) for fact in asked.facts]
    assert all(answer.grounding is not Grounding.INVENTED for answer in found)
    assert any(answer.grounding is Grounding.RIGHT for answer in found)


def test_shares_are_of_all_answers_or_of_a_kind() -> None:
    answers = (score(question(), "It is 150 euros."), score(question("absent"), "Yes, it is."))
    scores = Scores(answers)
    assert scores.share(Grounding.INVENTED) == 0.5
    assert scores.of(kind="absent").share(Grounding.INVENTED) == 1.0
    assert scores.of(kind="contradicted").share(Grounding.INVENTED) == 0.0


def test_broken_file_of_questions_names_the_line_and_the_field(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "sets:\n  - language: en\n    facts: [A fact.]\n    questions:\n"
        "      - {id: a, kind: answerable, question: 'What?'}\n"
        "      - {id: b, kind: answerable, question: 'What?', answer: '('}\n"
    )
    with pytest.raises(ConfigError) as refused:
        load_questions(path)
    message = str(refused.value)
    assert re.search(r"mine\.yaml, line 5", message)
    assert re.search(r"mine\.yaml, line 6", message)
    assert "answer" in message
