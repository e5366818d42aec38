"""CallScript: what a virtual caller says and how the person behaves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..errors import InvalidRequestError

__all__ = ["CallScript", "CallerTurn", "Moment", "ScriptedReply"]


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment in a reply, as the caller notices it.

    Attributes:
        event: When the reply was asked for, when its first text came, when it begins to be heard, or when ``word`` has
            been heard.
        delay_s: So much later, in seconds.
        word: The word.
    """

    event: Literal["asked", "first_token", "first_speech", "word"]
    delay_s: float = 0.0
    word: str = ""


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """A good reply, for a target that plays the assistant's part.

    Attributes:
        text: The words.
        calls: Tools that are called before, by name, with their arguments.
    """

    text: str
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()


@dataclass(frozen=True, slots=True)
class CallerTurn:
    """One thing that the caller says, or a silence.

    Attributes:
        text: The words; none where the caller says nothing.
        max_tokens: Longest reply, in tokens; None leaves it to the target.
        silence_s: How long a caller says nothing who has no words.
        pauses: Silences among the words: after how many words, and how long in seconds.
        partials: What a recogniser reports while the words are said; None for the words, a few at a time.
        starts: When the caller begins to speak, in the reply before, which is broken off; None: when that has been
            heard and thought about.
        think_s: Pause before it, in seconds, where it is another than the script's.
        hangs_up: When the caller hangs up in the reply to this; None for not at all.
        rag_context: Retrieved text of this turn.
        reply: A good reply.
    """

    text: str = ""
    max_tokens: int | None = None
    silence_s: float = 0.0
    pauses: tuple[tuple[int, float], ...] = ()
    partials: tuple[str, ...] | None = None
    starts: Moment | None = None
    think_s: float | None = None
    hangs_up: Moment | None = None
    rag_context: str | None = None
    reply: ScriptedReply | None = None

    def __post_init__(self) -> None:
        if bool(self.text.strip()) == (self.silence_s > 0):
            raise InvalidRequestError("a caller's turn must have words, or else a silence", param="text")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallScript:
    """One phone call, from the caller's side.

    Attributes:
        turns: What the caller says, in order.
        name: What the script is called, such as its scenario's name.
        language: Code of what is spoken; None for the target's own.
        system_prompt: How the call begins for the model.
        history: Messages before the first turn.
        rag_context: Retrieved text of this call.
        tools: What the model may call, as OpenAI writes it.
        tool_results: What each tool returns, by its name; JSON.
        speaking_wpm: Words that the caller speaks in a minute.
        think_s: Pause between the end of a reply, as heard, and the caller's next words; seconds.
        listen_chars_per_s: How fast a reply is played.
        hang_up_after_turn: Hang up after that many turns were heard; None stays to the end of the script.
        partials: Send what has been said so far as prefill hints, a few words at a time, as a recogniser would.
        prefill_on_open: Send what is known when the call opens as the first hint.
        mishears: Share of these reports whose last word is wrong until the next one.
        noise_snr_db: Signal-to-noise ratio where the caller is heard as sound, in decibels; None for a quiet line.

    Raises:
        InvalidRequestError: A value is out of range; ``param`` names the field.
    """

    turns: tuple[CallerTurn, ...]
    name: str = ""
    language: str | None = None
    system_prompt: str = ""
    history: tuple[Mapping[str, Any], ...] = ()
    rag_context: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_results: Mapping[str, Any] = field(default_factory=dict)
    speaking_wpm: float = 150.0
    think_s: float = 0.8
    listen_chars_per_s: float = 15.0
    hang_up_after_turn: int | None = None
    partials: bool = True
    prefill_on_open: bool = True
    mishears: float = 0.0
    noise_snr_db: float | None = None

    def __post_init__(self) -> None:
        if not self.turns:
            raise InvalidRequestError("a call needs at least one turn", param="turns")
        for name in ("speaking_wpm", "listen_chars_per_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidRequestError(f"{name} must be more than 0, not {getattr(self, name)!r}", param=name)
        if not 0 <= self.think_s < math.inf:
            raise InvalidRequestError(f"think_s must not be negative, not {self.think_s!r}", param="think_s")
        if not 0 <= self.mishears <= 1:
            raise InvalidRequestError(f"mishears must be between 0 and 1, not {self.mishears!r}", param="mishears")
        if self.hang_up_after_turn is not None and self.hang_up_after_turn < 1:
            raise InvalidRequestError("hang_up_after_turn must be at least 1", param="hang_up_after_turn")

    @property
    def spoken_turns(self) -> tuple[CallerTurn, ...]:
        """The turns that are said before the caller hangs up."""
        return self.turns[: self.hang_up_after_turn]

    def at_speed(self, speed: float) -> CallScript:
        """Return the same call with a person who does everything ``speed`` times as fast."""
        return replace(
            self,
            turns=tuple(_turn_at_speed(turn, speed) for turn in self.turns),
            speaking_wpm=self.speaking_wpm * speed,
            think_s=self.think_s / speed,
            listen_chars_per_s=self.listen_chars_per_s * speed,
        )


def _turn_at_speed(turn: CallerTurn, speed: float) -> CallerTurn:
    return replace(
        turn,
        silence_s=turn.silence_s / speed,
        pauses=tuple((words, pause_s / speed) for words, pause_s in turn.pauses),
        starts=_moment_at_speed(turn.starts, speed),
        think_s=None if turn.think_s is None else turn.think_s / speed,
        hangs_up=_moment_at_speed(turn.hangs_up, speed),
    )


def _moment_at_speed(moment: Moment | None, speed: float) -> Moment | None:
    return None if moment is None else replace(moment, delay_s=moment.delay_s / speed)
