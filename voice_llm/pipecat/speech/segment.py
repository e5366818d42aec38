"""SpeechSegment: the audio of what a caller is saying, and where the last sound in it was."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["SpeechSegment"]

BLOCK_S = 0.02
# A block is heard as speech above -30 dB of the loudest of late (a word's last consonant is some 25 dB below its vowel)
# and above the line's own noise.
SPEECH_TO_PEAK = 0.03
SPEECH_TO_NOISE = 1.5
# However noisy the line, a block at half of the peak is speech.
MAX_SPEECH_TO_PEAK = 0.5
# The peak is forgotten by half in three seconds. The noise is the quietest of late: it doubles in half a second
# at most, so that the first sounds of speech, before the VAD has noticed them, are not taken for it.
PEAK_DECAY = 0.995
NOISE_GROWTH = 1.03
LEAST_NOISE = 1e-4


class SpeechSegment:
    """Collects a caller's audio, from a little before the VAD says that speech has begun until it is taken.

    Pauses are found by loudness, some 0.1 s before a VAD reports them: wrongly at times, so what follows from one must
    be easy to undo.

    Args:
        sample_rate_hz: Samples a second.
        pre_roll_s: Seconds kept of what was before the start; a VAD takes 0.2 s to notice speech.
    """

    def __init__(self, sample_rate_hz: int, *, pre_roll_s: float = 0.8) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._block_bytes = 2 * int(sample_rate_hz * BLOCK_S)
        self._pre_roll_bytes = 2 * int(sample_rate_hz * pre_roll_s)
        self._pcm = bytearray()
        self._measured_bytes = 0
        self._speech_end_bytes = 0
        self._peak = 0.0
        self._noise = math.inf
        self._started = False

    @property
    def duration_s(self) -> float:
        """Seconds of audio in the segment."""
        return len(self._pcm) / 2 / self.sample_rate_hz

    @property
    def speech_end_s(self) -> float:
        """Where the last sound of speech ended, in seconds from the segment's start."""
        return self._speech_end_bytes / 2 / self.sample_rate_hz

    @property
    def pause_s(self) -> float:
        """Seconds of quiet at the end of the segment."""
        return self.duration_s - self.speech_end_s

    def start(self) -> None:
        """Keep everything from now on; the caller has begun to speak."""
        if not self._started:
            self._started = True
            self._peak = 0.0
            self._measured_bytes = self._speech_end_bytes = 0
            self._measure()

    def add(self, pcm: bytes) -> None:
        """Append 16-bit mono audio; before the start, only the newest is kept."""
        self._pcm += pcm
        self._measure()
        surplus = len(self._pcm) - self._pre_roll_bytes
        if not self._started and surplus > 0:
            del self._pcm[: surplus + surplus % 2]
            self._measured_bytes = max(0, self._measured_bytes - surplus - surplus % 2)

    def samples(self) -> npt.NDArray[np.float32]:
        """Return a copy of the audio, between -1 and 1, shape ``(n,)``."""
        return _samples(bytes(self._pcm[: len(self._pcm) & ~1]))

    def take(self) -> npt.NDArray[np.float32]:
        """Return the audio as ``samples`` does and begin anew."""
        samples = self.samples()
        self._pcm.clear()
        self._measured_bytes = self._speech_end_bytes = 0
        self._started = False
        return samples

    def _measure(self) -> None:
        while self._measured_bytes + self._block_bytes <= len(self._pcm):
            end = self._measured_bytes + self._block_bytes
            block = _samples(bytes(self._pcm[self._measured_bytes : end]))
            loudness = float(np.sqrt(np.mean(block * block)))
            self._measured_bytes = end
            # While the caller speaks, it can only turn out lower.
            grown = self._noise if self._started else self._noise * NOISE_GROWTH
            self._noise = max(LEAST_NOISE, min(loudness, grown))
            if self._started:
                self._peak = max(self._peak * PEAK_DECAY, loudness)
                threshold = max(SPEECH_TO_PEAK * self._peak, SPEECH_TO_NOISE * self._noise)
                if loudness >= min(threshold, MAX_SPEECH_TO_PEAK * self._peak):
                    self._speech_end_bytes = end


def _samples(pcm: bytes) -> npt.NDArray[np.float32]:
    return np.frombuffer(pcm, np.int16).astype(np.float32) / 32768.0
