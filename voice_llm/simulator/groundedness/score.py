"""Groundedness: does a reply say only what the call's facts bear out?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from .claims import claims_of, small

__all__ = ["Answer", "GroundedQuestion", "Grounding", "Scores", "score"]

Kind = Literal["answerable", "absent", "contradicted"]

_DECLINES: Final = re.compile(
    r"call(s|ed)? (you )?back|colleague|do(n't| not) (know|have)|no information|not (sure|mentioned|specified|stated)"
    r"|cannot|can't|unable|sorry, (but )?i"
    r"|geri ara|bilgi(m|miz|si)? (yok|bulunm)|bilmiyor|bulunmuyor|yer almıyor|belirtilme|görevli|meslektaş"
    r"|yardımcı olamı"
)


class Grounding(StrEnum):
    """What a reply is, held against the facts."""

    RIGHT = "right"
    DECLINED = "declined"
    WRONG = "wrong"
    INVENTED = "invented"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundedQuestion:
    """A question, and what the facts say to it.

    Attributes:
        id: Its name.
        language: Code of its language.
        facts: What the call knows.
        question: What the caller asks.
        kind: Whether the facts answer it, do not, or contradict what the caller claims.
        answer: Regular expression of right answers; None where the facts do not say.
        claim: Regular expression of replies that agree with a false claim.
    """

    id: str
    language: str
    facts: tuple[str, ...]
    question: str
    kind: Kind
    answer: str | None = None
    claim: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply and its score.

    Attributes:
        question: What was asked.
        text: The reply.
        grounding: What it is.
        why: What is invented or missing.
    """

    question: GroundedQuestion
    text: str
    grounding: Grounding
    why: str = ""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of all questions.

    Attributes:
        answers: One a question.
        failed: How many calls failed; their replies are empty.
    """

    answers: tuple[Answer, ...]
    failed: int = 0

    def share(self, grounding: Grounding) -> float:
        """Return which share of the replies is of a kind."""
        return self._counts()[grounding] / len(self.answers) if self.answers else 0.0

    def _counts(self) -> Counter[Grounding]:
        return Counter(answer.grounding for answer in self.answers)

    def of(self, *, kind: Kind | None = None, language: str | None = None) -> Scores:
        """Return the scores of some questions."""
        return Scores(
            tuple(
                a for a in self.answers if kind in (None, a.question.kind) and language in (None, a.question.language)
            )
        )


def score(question: GroundedQuestion, text: str) -> Answer:
    """Hold a reply against the facts: what can be checked in it and is in neither facts nor question is invented."""
    grounding, why = _judged(question, text)
    return Answer(question, text, grounding, why)


def _judged(question: GroundedQuestion, text: str) -> tuple[Grounding, str]:
    said = small(text, question.language)
    if invented := _unsupported(question, text):
        return Grounding.INVENTED, f"not in the facts: {', '.join(sorted(invented))}"
    right = question.answer is not None and re.search(question.answer, said) is not None
    declines = _DECLINES.search(said) is not None
    if question.kind == "contradicted" and not right and question.claim and re.search(question.claim, said):
        return Grounding.INVENTED, "agrees with what the caller claims"
    if right:
        return Grounding.RIGHT, ""
    if question.kind == "absent":
        if declines:
            return Grounding.RIGHT, ""
        return (
            (Grounding.INVENTED, "answers what the facts do not say") if said.strip() else (Grounding.WRONG, "silent")
        )
    if declines:
        return Grounding.DECLINED, "the facts would have answered it"
    return Grounding.WRONG, "does not say what the facts say"


def _unsupported(question: GroundedQuestion, text: str) -> frozenset[str]:
    known: Iterable[str] = (*question.facts, question.question)
    supported = frozenset().union(*(claims_of(one, question.language) for one in known))
    words = small(" ".join(known), question.language)
    found = claims_of(text, question.language) - supported
    return frozenset(claim for claim in found if not re.search(_as_in_text(claim), words))


def _as_in_text(claim: str) -> str:
    """A word may have an ending; a number stands alone."""
    return rf"\b{re.escape(claim)}" + (r"(?!\d|[.,:]\d)" if claim[0].isdigit() else "")
