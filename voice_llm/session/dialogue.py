"""Dialogue: the turns of a call, and what of them stands in its history."""

from __future__ import annotations

from ..errors import InvalidRequestError
from .history import History
from .turn import RunningTurn

__all__ = ["Dialogue"]


class Dialogue:
    """Keeps the book of turns: their names, how many the caller was told, and what was heard of them.

    Args:
        history: Where it is written down.

    Attributes:
        history: The messages, as far as they were heard.
        turns: How many turns spoke, or began to.
        last_turn: The last of them; None where it was taken back.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.turns = 0
        self.last_turn: RunningTurn | None = None
        self._ids: set[str] = set()

    def new_id(self, wanted: str | None) -> str:
        """Return the name of the next turn, a fresh one where none is wanted.

        Raises:
            InvalidRequestError: A turn of that name was there before.
        """
        if wanted is None:
            number = len(self._ids) + 1
            while f"t{number}" in self._ids:
                number += 1
            return f"t{number}"
        if wanted in self._ids:
            raise InvalidRequestError("a turn of that id was there before", param="turn_id")
        return wanted

    def begin(self, turn: RunningTurn) -> None:
        """Note a turn's name, which is taken from now on."""
        self._ids.add(turn.turn_id)

    def knows(self, turn_id: str) -> bool:
        """Whether there was a turn of that name."""
        return turn_id in self._ids

    def speak(self, turn: RunningTurn) -> None:
        """Make a turn the one that the caller hears."""
        self.history.add(turn.question)
        self.last_turn = turn
        self.turns += 1
        turn.release()

    def answer(self, turn: RunningTurn, heard: str) -> None:
        """Write down what was heard of a turn, in place of what stands there."""
        self.history.answer(turn.question, turn.reply(heard))

    def take_back(self, turn: RunningTurn) -> None:
        """Leave out of the prompts to come what spoils them: the question, or only the tools that it led to."""
        if not turn.is_first_round:
            turn.forget_tools()
            return
        self.history.take_back(turn.question)
        if self.last_turn is turn:
            self.last_turn = None
