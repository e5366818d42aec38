"""CallScript: what a virtual caller says and how the person behaves."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from ..errors import InvalidRequestError

__all__ = ["CallScript", "CallerTurn"]

_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class CallerTurn:
    """One thing that the caller says.

    Attributes:
        text: The words.
        max_tokens: Longest reply, in tokens; None leaves it to the target.
    """

    text: str
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise InvalidRequestError("a caller's turn must have words", param="text")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallScript:
    """One phone call, from the caller's side.

    Attributes:
        turns: What the caller says, in order.
        system_prompt: How the call begins for the model.
        rag_context: Retrieved text of this call.
        speaking_wpm: Words that the caller speaks in a minute.
        think_s: Pause between the end of a reply, as heard, and the caller's next words; seconds.
        listen_chars_per_s: How fast a reply is played.
        hang_up_after_turn: Hang up after that many turns were heard; None stays to the end of the script.
        partials: Send what has been said so far as prefill hints, a few words at a time, as a recogniser would.
        prefill_on_open: Send what is known when the call opens as the first hint.

    Raises:
        InvalidRequestError: A value is out of range; ``param`` names the field.
    """

    turns: tuple[CallerTurn, ...]
    system_prompt: str = ""
    rag_context: str | None = None
    speaking_wpm: float = 150.0
    think_s: float = 0.8
    listen_chars_per_s: float = 15.0
    hang_up_after_turn: int | None = None
    partials: bool = True
    prefill_on_open: bool = True

    def __post_init__(self) -> None:
        if not self.turns:
            raise InvalidRequestError("a call needs at least one turn", param="turns")
        for name in ("speaking_wpm", "listen_chars_per_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidRequestError(f"{name} must be more than 0, not {getattr(self, name)!r}", param=name)
        if not 0 <= self.think_s < math.inf:
            raise InvalidRequestError(f"think_s must not be negative, not {self.think_s!r}", param="think_s")
        if self.hang_up_after_turn is not None and self.hang_up_after_turn < 1:
            raise InvalidRequestError("hang_up_after_turn must be at least 1", param="hang_up_after_turn")

    @property
    def spoken_turns(self) -> tuple[CallerTurn, ...]:
        """The turns that are said before the caller hangs up."""
        return self.turns[: self.hang_up_after_turn]

    def speaking_s(self, text: str) -> float:
        """How long the caller takes to say ``text``, in seconds."""
        return len(_WORD.findall(text)) * 60.0 / self.speaking_wpm

    def partials_of(self, text: str, words: int = 3) -> tuple[str, ...]:
        """What a streaming recogniser reports while ``text`` is said: it grows by ``words``; the whole is not in it."""
        ends = [match.end() for match in _WORD.finditer(text)]
        return tuple(text[:end] for end in ends[words - 1 : -1 : words])

    def at_speed(self, speed: float) -> CallScript:
        """Return the same call with a person who does everything ``speed`` times as fast."""
        return replace(
            self,
            speaking_wpm=self.speaking_wpm * speed,
            think_s=self.think_s / speed,
            listen_chars_per_s=self.listen_chars_per_s * speed,
        )
