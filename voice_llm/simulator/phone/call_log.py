"""The bot's call log, and what it tells about the turns of a call.

JSON Lines, one object for each thing that happened, with ``time_s`` (Unix seconds), ``call_id`` and ``event``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import CallLogError
from .results import PhoneCall, PhoneTurn, TurnStages

__all__ = ["LogEvent", "join_call_log", "read_call_log"]


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One line of a call log.

    Attributes:
        time_s: When it happened, in Unix seconds.
        call_id: In which call.
        name: What happened.
        fields: More about it.
    """

    time_s: float
    call_id: str
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What was said, where the event is about that."""
        return str(self.fields.get("text", "")).strip()


def read_call_log(path: Path) -> list[LogEvent]:
    """Read all events, by time. A last line that is still being written is left out.

    Raises:
        CallLogError: The file cannot be read, or a line of it is no event.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CallLogError(f"the bot's call log cannot be read: {error}") from error
    lines = text.split("\n")[:-1]  # what follows the last line end is still being written
    events = [_parse(line, number) for number, line in enumerate(lines, 1) if line.strip()]
    return sorted(events, key=lambda event: event.time_s)


def join_call_log(call: PhoneCall, events: Iterable[LogEvent]) -> PhoneCall:
    """Return the call with the stages and the words that the log has for each turn.

    Args:
        call: What the caller measured.
        events: The bot's events, by time; those of other calls are left out.
    """
    ours = [event for event in events if event.call_id == call.call_id]
    if not call.turns:
        return dataclasses.replace(call, greeting=_words(ours, "bot_said"))
    firsts = [turn.speech_start_unix_s for turn in call.turns]
    lasts = [turn.speech_end_unix_s for turn in call.turns]
    turns = tuple(
        # A reply that is interrupted is committed while the caller speaks the next line.
        _join_turn(turn, _between(ours, first, next_first), _between(ours, last, next_last), cut_off)
        for turn, first, next_first, last, next_last, cut_off in zip(
            call.turns,
            firsts,
            [*firsts[1:], math.inf],
            lasts,
            [*lasts[1:], math.inf],
            [*(turn.barge_in for turn in call.turns[1:]), False],
            strict=True,
        )
    )
    return dataclasses.replace(call, greeting=_words(_between(ours, -math.inf, lasts[0]), "bot_said"), turns=turns)


def _join_turn(turn: PhoneTurn, events: Sequence[LogEvent], replies: Sequence[LogEvent], cut_off: bool) -> PhoneTurn:
    said = [event for event in replies if event.name == "bot_said"]
    interrupted = any(event.fields.get("interrupted") is True for event in said) or (cut_off and not said)
    chain = _chain(turn, events)
    # A bot that counts whole sentences only has said nothing where the first was interrupted.
    begun = f"{chain['first_chunk'].text} ..." if interrupted and "first_chunk" in chain else None
    return dataclasses.replace(
        turn,
        heard=_words(events, "user_said") or _words([e for e in events if not e.fields.get("interim")], "transcript"),
        reply=_words(said, "bot_said") or begun,
        reply_interrupted=interrupted,
        stages=_stages(turn, chain),
    )


def _chain(turn: PhoneTurn, events: Sequence[LogEvent]) -> dict[str, LogEvent]:
    """Go back from what the caller heard: each stage is the last of its kind before the one that came of it.

    So a reply that was begun early and thrown away, or one before a tool call, is not taken for the one that was heard.
    """
    audible_s = math.inf
    if turn.voice_to_voice_ms is not None:
        audible_s = turn.speech_end_unix_s + turn.voice_to_voice_ms / 1000
    # A speculative reply can begin before the turn is known to be over: these two only come before the sound.
    chain: dict[str, LogEvent] = {
        name: event
        for event in events
        for name in ("user_speech_stopped", "user_turn_ended")
        if event.name == name and event.time_s <= audible_s
    }
    until_s = audible_s
    for name in ("first_audio", "first_chunk", "first_token", "transcript"):
        for event in reversed(events):
            if event.name == name and event.time_s <= until_s and not event.fields.get("interim"):
                chain[name] = event
                until_s = event.time_s
                break
    return chain


def _stages(turn: PhoneTurn, chain: Mapping[str, LogEvent]) -> TurnStages:
    def after_ms(name: str) -> float | None:
        return (chain[name].time_s - turn.speech_end_unix_s) * 1000 if name in chain else None

    return TurnStages(
        vad_stop_ms=after_ms("user_speech_stopped"),
        transcript_ms=after_ms("transcript"),
        turn_end_ms=after_ms("user_turn_ended"),
        first_token_ms=after_ms("first_token"),
        first_chunk_ms=after_ms("first_chunk"),
        first_audio_ms=after_ms("first_audio"),
        audible_ms=turn.voice_to_voice_ms,
    )


def _between(events: Sequence[LogEvent], begin_s: float, end_s: float) -> list[LogEvent]:
    return [event for event in events if begin_s <= event.time_s < end_s]


def _words(events: Iterable[LogEvent], name: str) -> str | None:
    return " ".join(event.text for event in events if event.name == name and event.text) or None


def _parse(line: str, number: int) -> LogEvent:
    try:
        entry = json.loads(line)
        time_s, call_id, name = float(entry.pop("time_s")), str(entry.pop("call_id")), str(entry.pop("event"))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CallLogError(f"line {number} of the bot's call log is no event") from None
    return LogEvent(time_s, call_id, name, entry)
