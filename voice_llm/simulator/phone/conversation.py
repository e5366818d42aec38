"""Conversation: when the caller speaks and when it listens, frame by frame of the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .audio import FRAME_SAMPLES, SAMPLE_RATE, Samples, line_noise, mixed
from .errors import CallTooLongError, NoReplyError
from .script import SpokenLine
from .speech_edges import first_audible, last_audible

__all__ = ["Conversation", "Manners", "Utterance"]

_STOPPED_S: Final = 0.1
# Long enough that nobody hears the noise repeat.
_NOISE_SAMPLES: Final = 5 * SAMPLE_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How a caller behaves.

    Attributes:
        wait_for_greeting: The bot speaks first.
        greeting_timeout_s: How long the caller waits for that; a bot may load its models only now.
        reply_timeout_s: How long the caller waits for the first sound of a reply.
        dropped_reply_timeout_s: How long it waits where the bot has dropped a reply that it had begun; it goes on then.
        pause_s: How long the bot is silent before the caller hangs up, or begins where there is no greeting.
        max_call_s: How long the whole call may take.
        noise_dbfs: Level of the line noise.
    """

    wait_for_greeting: bool = True
    greeting_timeout_s: float = 60.0
    reply_timeout_s: float = 20.0
    dropped_reply_timeout_s: float = 4.0
    pause_s: float = 0.8
    max_call_s: float = 600.0
    noise_dbfs: float = -60.0


@dataclass(frozen=True, slots=True)
class Utterance:
    """A line that the caller has begun to say; positions are samples since the stream began.

    Attributes:
        spoken: What is said.
        start: Where its sound begins.
        interrupts: It was begun over the bot's reply.
    """

    spoken: SpokenLine
    start: int
    interrupts: bool

    @property
    def speech_start(self) -> int:
        """Where its first audible sample is."""
        return self.start + self.spoken.speech_start

    @property
    def speech_end(self) -> int:
        """Where its last audible sample was."""
        return self.start + self.spoken.speech_end

    @property
    def end(self) -> int:
        """Where its sound ends."""
        return self.start + len(self.spoken.samples)


class Conversation:
    """Says the lines one after the other, each at its time. Holds no clock: each ``step`` is one frame of time.

    Args:
        lines: What to say.
        manners: How.
    """

    def __init__(self, lines: Sequence[SpokenLine], manners: Manners | None = None) -> None:
        self._waiting = list(lines)
        self._manners = manners or Manners()
        self._noise = line_noise(_NOISE_SAMPLES, self._manners.noise_dbfs)
        self._position = 0
        self._listening_since = 0
        self._reply_start: int | None = None
        self._heard_until = 0
        self._over_old_reply = False
        self._dropped_at: int | None = None
        self.utterances: list[Utterance] = []
        """What has been said so far, and where."""
        self.finished = False
        """All has been said and answered."""

    @property
    def answered(self) -> bool:
        """All has been said, and the reply to the last line has at least begun."""
        return not self._waiting and not self._speaking and self._reply_start is not None

    def reply_dropped(self) -> None:
        """The bot has taken back what it had begun to say: the caller listens for what it says instead."""
        if not self._speaking and self._reply_start is not None:
            self._reply_start = None
            self._dropped_at = self._position

    def step(self, heard: Samples) -> Samples:
        """Spend one frame of time.

        Args:
            heard: The frame that the caller hears, 160 samples.

        Returns:
            The frame that the caller says meanwhile.

        Raises:
            NoReplyError: The bot was silent for too long.
            CallTooLongError: The call was.
        """
        self._listen(heard)
        if not self._speaking:
            self._decide()
        frame = self._speech()
        self._position += FRAME_SAMPLES
        if self._position > self._manners.max_call_s * SAMPLE_RATE:
            raise CallTooLongError(f"the call was not over after {self._manners.max_call_s:g} s")
        return frame

    @property
    def _speaking(self) -> bool:
        return bool(self.utterances) and self._position < self.utterances[-1].end

    def _listen(self, heard: Samples) -> None:
        first, last = first_audible(heard), last_audible(heard)
        if self._over_old_reply and not self._speaking:
            # Silent by the time the caller has ended: it has stopped. Otherwise it is as over as any reply.
            limit_s = self._pause_s if self._position >= self._listening_since + FRAME_SAMPLES else _STOPPED_S
            self._over_old_reply = self._position - self._heard_until < limit_s * SAMPLE_RATE
        if first is None or last is None:
            return
        self._heard_until = self._position + last
        if self._reply_start is None and not self._speaking and not self._over_old_reply:
            self._reply_start = self._position + first

    def _decide(self) -> None:
        """Begin the next line, hang up, or give up, where it is time for that."""
        now = self._position + FRAME_SAMPLES
        if self._reply_start is None:
            if self._dropped_at is not None:
                if now - self._dropped_at >= self._manners.dropped_reply_timeout_s * SAMPLE_RATE:
                    self._begin(interrupts=False)
            elif self._nobody_speaks_first and now >= self._pause_s * SAMPLE_RATE:
                self._begin(interrupts=False)
            elif not self._nobody_speaks_first:
                self._check_patience(now)
        elif now - self._heard_until >= self._pause_s * SAMPLE_RATE:
            self._begin(interrupts=False)
        elif self._waiting and (after_s := self._waiting[0].line.barge_in_after_s) is not None:
            # Into speech, not into a pause between two sentences of it.
            audible = now - self._heard_until < FRAME_SAMPLES
            if audible and now - self._reply_start >= after_s * SAMPLE_RATE:
                self._begin(interrupts=True)

    @property
    def _nobody_speaks_first(self) -> bool:
        return not self.utterances and not self._manners.wait_for_greeting

    @property
    def _pause_s(self) -> float:
        return self._waiting[0].line.pause_s if self._waiting else self._manners.pause_s

    def _begin(self, *, interrupts: bool) -> None:
        if not self._waiting:
            self.finished = True
            return
        # From the next frame on: this one was heard before it could be decided upon.
        utterance = Utterance(self._waiting.pop(0), self._position + FRAME_SAMPLES, interrupts)
        self.utterances.append(utterance)
        self._listening_since = utterance.end
        self._reply_start = None
        self._over_old_reply = interrupts
        self._dropped_at = None

    def _check_patience(self, now: int) -> None:
        greeting = not self.utterances
        patience_s = self._manners.greeting_timeout_s if greeting else self._manners.reply_timeout_s
        if now - self._listening_since >= patience_s * SAMPLE_RATE:
            what = "no greeting came" if greeting else f"no reply to turn {len(self.utterances)} came"
            raise NoReplyError(f"{what} within {patience_s:g} s")

    def _speech(self) -> Samples:
        offset = self._position % len(self._noise)
        frame = self._noise[offset : offset + FRAME_SAMPLES].copy()
        if self.utterances:
            begun = self._position - self.utterances[-1].start
            if begun >= 0:
                speech = self.utterances[-1].spoken.samples[begun : begun + FRAME_SAMPLES]
                frame[: len(speech)] = mixed(frame[: len(speech)], speech)
        return frame
