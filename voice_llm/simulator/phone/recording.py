"""Recording: both sides of a call as the caller heard and said them, sample by sample on one clock."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InvalidRequestError
from .audio import SAMPLE_RATE, Samples

__all__ = ["Recording"]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A call's sound.

    Attributes:
        caller: What the caller said.
        bot: What the caller heard meanwhile, of the same length.

    Raises:
        InvalidRequestError: They are not of the same length.
    """

    caller: Samples
    bot: Samples

    def __post_init__(self) -> None:
        if len(self.caller) != len(self.bot):
            raise InvalidRequestError(f"a recording of {len(self.caller)} samples left and {len(self.bot)} right")

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return len(self.bot) / SAMPLE_RATE

    def write_wav(self, path: Path) -> None:
        """Write 16-bit stereo at 8 kHz, the caller left, the bot right.

        Raises:
            OSError: The file cannot be written.
        """
        with wave.open(str(path), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(np.column_stack([self.caller, self.bot]).astype("<i2").tobytes())
