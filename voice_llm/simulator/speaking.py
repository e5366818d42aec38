"""How a caller's words come out: when each is said, and what a streaming recogniser makes of them meanwhile."""

from __future__ import annotations

import random
import re
from typing import Final

from .script import CallerTurn, CallScript

__all__ = ["Speaking"]

_WORD: Final = re.compile(r"\S+")
_WORDS_PER_PARTIAL: Final = 3
_MISHEARD: Final = ("the", "two", "there", "a", "in", "uh", "bir", "şey", "de", "var")


class Speaking:
    """One turn as it is spoken. Holds no clock: times count from the first word, in seconds.

    Args:
        turn: What is said.
        script: Who says it.
        rng: Decides which words are misheard.
    """

    def __init__(self, turn: CallerTurn, script: CallScript, rng: random.Random) -> None:
        self._turn = turn
        self._word_s = 60.0 / script.speaking_wpm
        self._ends = [match.end() for match in _WORD.finditer(turn.text)]
        self._mishears = script.mishears
        self._rng = rng

    @property
    def lasts_s(self) -> float:
        """How long it takes, pauses included."""
        return self._turn.silence_s if not self._turn.text else self._said_s(len(self._ends))

    def partials(self) -> list[tuple[float, str]]:
        """Return what the recogniser reports, and when: never the whole turn, which is the transcript itself."""
        if self._turn.partials is not None:
            return self._scripted(self._turn.partials)
        counts = range(_WORDS_PER_PARTIAL, len(self._ends), _WORDS_PER_PARTIAL)
        return [(self._said_s(count), self._heard(count)) for count in counts]

    def _scripted(self, partials: tuple[str, ...]) -> list[tuple[float, str]]:
        """A report is made once as many words have been said as it has."""
        counts = (min(len(partial.split()), len(self._ends)) for partial in partials)
        return [(self._said_s(count), partial) for count, partial in zip(counts, partials, strict=True)]

    def _said_s(self, words: int) -> float:
        return words * self._word_s + sum(pause_s for after, pause_s in self._turn.pauses if after < words)

    def _heard(self, words: int) -> str:
        text = self._turn.text[: self._ends[words - 1]]
        if not self._mishears or self._rng.random() >= self._mishears:
            return text
        before = text[: self._ends[words - 2]] if words > 1 else ""
        return f"{before} {self._rng.choice(_MISHEARD)}".strip()
