"""What a caller is going to say, before and after it has been synthesised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from ...errors import InvalidRequestError
from .audio import SAMPLE_RATE, Samples
from .speech_edges import first_audible, last_audible

__all__ = ["Line", "SpokenLine", "Voice", "speak_lines"]

# What a threshold takes for silence can still be the breath of a first or last consonant.
_EDGE_SAMPLES: Final = SAMPLE_RATE // 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One utterance of the caller.

    Attributes:
        text: What to say.
        pause_s: It is said when the bot has been silent for that long after its reply.
        barge_in_after_s: Instead, it is said over the bot's reply, that long after this became audible.

    Raises:
        InvalidRequestError: A field is out of range.
    """

    text: str
    pause_s: float = 0.8
    barge_in_after_s: float | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise InvalidRequestError("a caller's line is empty", param="text")
        if not self.pause_s > 0:
            raise InvalidRequestError(f"pause_s must be more than 0, not {self.pause_s!r}", param="pause_s")
        if self.barge_in_after_s is not None and not self.barge_in_after_s >= 0:
            raise InvalidRequestError(
                f"barge_in_after_s must not be negative, not {self.barge_in_after_s!r}", param="barge_in_after_s"
            )


@dataclass(frozen=True, slots=True, eq=False)
class SpokenLine:
    """A line as it sounds.

    Attributes:
        line: What is said.
        samples: The sound, cut to a little around the speech.
        speech_start: Position of its first audible sample.
        speech_end: The position after its last.
    """

    line: Line
    samples: Samples
    speech_start: int
    speech_end: int

    @classmethod
    def cut(cls, line: Line, samples: Samples) -> SpokenLine:
        """Cut off the silence that a voice leaves before and after the speech.

        Raises:
            InvalidRequestError: Nothing in it is audible.
        """
        start, end = first_audible(samples), last_audible(samples)
        if start is None or end is None:
            raise InvalidRequestError("the voice gave no audible sound for a line of the caller", param="text")
        first = max(0, start - _EDGE_SAMPLES)
        return cls(line, samples[first : end + _EDGE_SAMPLES], start - first, end - first)


class Voice(Protocol):
    """Turns text into a telephone's sound."""

    def speak(self, text: str) -> Samples:
        """Return the text as 8 kHz mono."""
        ...


def speak_lines(lines: Iterable[Line], voice: Voice) -> tuple[SpokenLine, ...]:
    """Synthesise all that a caller is going to say, so that nothing has to be computed during the call."""
    return tuple(SpokenLine.cut(line, np.asarray(voice.speak(line.text), np.int16)) for line in lines)
