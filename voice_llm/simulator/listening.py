"""HeardReply: what one reply sounds like to the person who listens to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from .script import Moment

__all__ = ["HeardReply"]

_SENTENCE_END: Final = re.compile(r"[.!?…]\s")
_ENOUGH_CHARS: Final = 80
# Shorter silences are rounding of the clock.
_LEAST_GAP_S: Final = 1e-6
# Times are sums of floating-point seconds: a character that ends now has been heard.
_ROUNDING_CHARS: Final = 1e-6


@dataclass(frozen=True, slots=True)
class _Played:
    """A piece of the reply that is played without a gap."""

    starts_s: float
    begin: int
    end: int


class HeardReply:
    """Plays a reply's text at a steady rate while it comes in. Holds no clock: times are arguments, in seconds.

    Speech starts with the first whole sentence (``.``, ``!``, ``?`` or ``…`` and a space after it), with 80 characters,
    or with the reply's end. From then on, a *gap* is a silence in the middle: all that was received has been played
    and more is still to come.

    Args:
        asked_s: When the caller stopped speaking.
        chars_per_s: How fast the reply is played.
    """

    def __init__(self, asked_s: float, chars_per_s: float) -> None:
        self._asked_s = asked_s
        self._chars_per_s = chars_per_s
        self._played: list[_Played] = []
        self._unplayed = ""
        self.text = ""
        """What has been received so far."""
        self.first_token_s: float | None = None
        """When the first text came."""
        self.first_speech_s: float | None = None
        """When there was enough of it to start speaking."""
        self.heard_until_s = asked_s
        """When all that can be played so far will have been."""
        self.gaps = 0
        """Silences inside the reply."""
        self.gap_s = 0.0
        """How long they were together."""

    def receive(self, text: str, now_s: float) -> None:
        """Take in the next piece."""
        if not text:
            return
        if self.first_token_s is None:
            self.first_token_s = now_s
        self.text += text
        self._unplayed += text
        # White space has no sound: it neither starts the speech nor ends a silence.
        speaks = not text.isspace() if self.first_speech_s is not None else self._has_speech()
        if speaks:
            self._play(now_s)

    def end(self, now_s: float) -> None:
        """The reply is complete: what is left of it can be played."""
        if self._unplayed.strip():
            self._play(now_s)

    def heard(self, now_s: float) -> str:
        """Return what has been heard by then."""
        chars = 0
        for piece in self._played:
            if piece.starts_s > now_s:
                break
            played = int((now_s - piece.starts_s) * self._chars_per_s + _ROUNDING_CHARS)
            chars = min(piece.begin + played, piece.end)
        return self.text[:chars]

    def time_of(self, moment: Moment) -> float | None:
        """Return when a moment is or was, as far as that is known by now."""
        times: dict[str, float | None] = {
            "asked": self._asked_s,
            "first_token": self.first_token_s,
            "first_speech": self.first_speech_s,
        }
        at_s = times[moment.event] if moment.event in times else self._time_of_word(moment.word)
        return None if at_s is None else at_s + moment.delay_s

    def _time_of_word(self, word: str) -> float | None:
        found = re.search(rf"\b{re.escape(word)}\b", self.text, re.IGNORECASE)
        if found is None:
            return None
        for piece in self._played:
            if found.end() <= piece.end:
                return piece.starts_s + max(0, found.end() - piece.begin) / self._chars_per_s
        return None

    def _has_speech(self) -> bool:
        said = self._unplayed.lstrip()
        return len(said) >= _ENOUGH_CHARS or _SENTENCE_END.search(said) is not None

    def _play(self, now_s: float) -> None:
        silence_s = now_s - self.heard_until_s
        if self.first_speech_s is None:
            self.first_speech_s = self.heard_until_s = now_s
        elif silence_s > _LEAST_GAP_S:
            self.gaps += 1
            self.gap_s += silence_s
            self.heard_until_s = now_s
        self._played.append(_Played(self.heard_until_s, len(self.text) - len(self._unplayed), len(self.text)))
        self.heard_until_s += len(self._unplayed) / self._chars_per_s
        self._unplayed = ""
