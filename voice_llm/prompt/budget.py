"""Which turns of a long call still fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class TurnTokens(NamedTuple):
    """Sizes of one turn: a user message and all that follows it up to the next one.

    Attributes:
        question: Tokens when its last reply was asked for: all but that reply.
        total: Tokens once the reply is in the history too.
    """

    question: int
    total: int


def question_room(room_tokens: int) -> int:
    """How many tokens of the room for turns every question is taken to need at least.

    A turn's cut must not depend on how much of the question has been heard yet, or a prefill made for the first words
    would be thrown away with the last ones; with this room the cut is known as soon as the turn before has ended.
    """
    return room_tokens // 8


def first_kept_turn(turns: Sequence[TurnTokens], fixed_tokens: int, budget_tokens: int) -> int:
    """Return the index of the oldest turn that stays in the prompt.

    Where a turn does not fit, whole oldest turns go until it and what is left fill no more than half of the room beside
    ``fixed_tokens``. The call is replayed from its first turn, so the same history gives the same cut, and a cut
    stays where it is until the budget is exceeded again: each move costs a prefill of all that is kept.

    Args:
        turns: Every turn of the call, oldest first; the last is the one to answer.
        fixed_tokens: What always stays: the system message with its RAG context.
        budget_tokens: Room for the whole prompt.

    Returns:
        An index into ``turns``; the last turn is always kept, even where it does not fit.
    """
    room = max(0, budget_tokens - fixed_tokens)
    start = held = 0
    for index, turn in enumerate(turns):
        needed = max(turn.question, question_room(room))
        if held + needed > room:
            while start < index and held + needed > room // 2:
                held -= turns[start].total
                start += 1
        held += turn.total
    return start
