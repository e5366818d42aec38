"""Asking a target all questions, each in a call of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ..run import run_calls
from ..script import CallerTurn, CallScript
from ..targets import Target
from .score import Answer, GroundedQuestion, Scores, score

__all__ = ["ask_all"]

_INSTRUCTIONS: Final[Mapping[str, str]] = {
    "en": "You are a phone assistant. Answer in one short sentence, only with the information for this call. If it "
    "does not say it, say that you do not know and that a colleague will call back. Never guess.",
    "tr": "Bir telefon asistanısın. Yalnızca bu görüşme için verilen bilgilerle, tek kısa cümleyle cevap ver. "
    "Bilgilerde yoksa bilmediğini ve bir görevlinin geri arayacağını söyle. Asla tahmin etme.",
}
# Persons hurry: only what is said counts here.
_SPEED: Final = 1000.0


async def ask_all(
    target: Target,
    questions: Sequence[GroundedQuestion],
    *,
    concurrent: int = 4,
    max_tokens: int = 80,
    on_answer: Callable[[], None] = lambda: None,
) -> Scores:
    """Ask them all and score what comes; a call that failed is scored as if nothing had been said.

    Args:
        target: Who answers.
        questions: What is asked.
        concurrent: How many calls there are at once.
        max_tokens: Longest reply.
        on_answer: Called after each.
    """
    result = await run_calls(
        target,
        [_script(question, max_tokens) for question in questions],
        concurrent=concurrent,
        speed=_SPEED,
        on_progress=lambda call: on_answer(),
    )
    answers: list[Answer] = []
    for question, call in zip(questions, result.calls, strict=True):
        text = call.turns[0].text if call.turns else ""
        answer = score(question, text)
        answers.append(Answer(question, text, answer.grounding, "; ".join(call.errors) or answer.why))
    return Scores(tuple(answers), sum(bool(call.errors) for call in result.calls))


def _script(question: GroundedQuestion, max_tokens: int) -> CallScript:
    return CallScript(
        turns=(CallerTurn(question.question, max_tokens=max_tokens),),
        name=question.id,
        language=question.language,
        system_prompt=_INSTRUCTIONS.get(question.language.partition("-")[0], _INSTRUCTIONS["en"]),
        rag_context="\n".join(question.facts),
        partials=False,
        prefill_on_open=False,
    )
