"""What a phone call was like at the caller's edge: frozen values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..percentiles import Percentiles
from .recording import Recording

__all__ = ["PhoneCall", "PhoneTurn", "TurnStages"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStages:
    """When a reply got how far, in milliseconds after the end of the caller's speech; None where it is not known.

    A reply that is begun early can have stages before that end: those are negative.

    Attributes:
        vad_stop_ms: The bot noticed that the caller is silent.
        transcript_ms: The bot had the final transcript that the reply was made from.
        turn_end_ms: The bot took the caller's turn to be over.
        first_token_ms: The language model gave the reply's first token.
        first_chunk_ms: The bot's voice got the reply's first chunk of text.
        first_audio_ms: The bot's voice gave the reply's first sound.
        audible_ms: The caller heard it.
    """

    vad_stop_ms: float | None = None
    transcript_ms: float | None = None
    turn_end_ms: float | None = None
    first_token_ms: float | None = None
    first_chunk_ms: float | None = None
    first_audio_ms: float | None = None
    audible_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneTurn:
    """One line of the caller and the reply to it. Times without ``unix`` count from the beginning of the stream.

    Attributes:
        said: What the caller said.
        speech_start_s: The caller's first audible sample.
        speech_end_s: The caller's last.
        speech_start_unix_s: The first on the wall clock, to be compared with the bot's call log.
        speech_end_unix_s: The last on the wall clock.
        reply_start_s: The first audible sample of the bot after the caller's last; None where none came.
        reply_end_s: The last of that reply.
        voice_to_voice_ms: From the caller's last audible sample to the bot's first.
        broken_off: How often the bot dropped a reply to this line that it had begun, though nobody spoke.
        answer_ms: Like ``voice_to_voice_ms``, to the reply that it did not drop.
        barge_in: The line was said over the bot's speech.
        stop_ms: For a barge-in, from the caller's first audible sample to the last of the interrupted reply.
        talked_over: The bot began to speak while the caller still spoke.
        heard: What the bot understood, by its call log.
        reply: What the bot said, by its call log.
        reply_interrupted: The caller interrupted it, by the bot's call log.
        stages: How the reply came about, by the bot's call log.
    """

    said: str
    speech_start_s: float
    speech_end_s: float
    speech_start_unix_s: float
    speech_end_unix_s: float
    reply_start_s: float | None = None
    reply_end_s: float | None = None
    voice_to_voice_ms: float | None = None
    broken_off: int = 0
    answer_ms: float | None = None
    barge_in: bool = False
    stop_ms: float | None = None
    talked_over: bool = False
    heard: str | None = None
    reply: str | None = None
    reply_interrupted: bool = False
    stages: TurnStages | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneCall:
    """One call.

    Attributes:
        call_id: Its callSid.
        started_unix_s: When its stream began, on the wall clock.
        greeting_ms: From that to the bot's first audible sample, where it spoke first.
        greeting: What it said then, by its call log.
        turns: What followed.
        recording: Its sound.
        hung_up_by: ``caller`` or ``bot``.
        max_late_ms: By how much the caller's own clock was late at worst; latencies are less exact by as much.
    """

    call_id: str
    started_unix_s: float
    greeting_ms: float | None = None
    greeting: str | None = None
    turns: tuple[PhoneTurn, ...] = ()
    recording: Recording
    hung_up_by: str = "caller"
    max_late_ms: float = 0.0

    @property
    def voice_to_voice_ms(self) -> Percentiles | None:
        """Over the turns that were answered."""
        return Percentiles.of(turn.voice_to_voice_ms for turn in self.turns)

    @property
    def stop_ms(self) -> Percentiles | None:
        """Over the barge-ins."""
        return Percentiles.of(turn.stop_ms for turn in self.turns)

    def to_json(self) -> dict[str, Any]:
        """Return it all but the sound as ``json.dumps`` takes it."""
        fields = {name: getattr(self, name) for name in ("call_id", "started_unix_s", "greeting_ms", "greeting")}
        summary = {name: getattr(self, name) for name in ("voice_to_voice_ms", "stop_ms")}
        return {
            **fields,
            "duration_s": self.recording.duration_s,
            "hung_up_by": self.hung_up_by,
            "max_late_ms": self.max_late_ms,
            "summary": {name: dataclasses.asdict(figures) if figures else None for name, figures in summary.items()},
            "turns": [dataclasses.asdict(turn) for turn in self.turns],
        }
