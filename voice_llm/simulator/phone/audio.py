"""The telephone's sound: 16-bit samples at 8 kHz, one channel, in frames of 20 ms."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FRAME_S", "FRAME_SAMPLES", "SAMPLE_RATE", "Samples", "amplitude", "line_noise", "mixed", "silence"]

Samples: TypeAlias = npt.NDArray[np.int16]
"""Mono PCM, shape (samples,)."""

SAMPLE_RATE: Final = 8000
"""Samples a second."""
FRAME_S: Final = 0.02
FRAME_SAMPLES: Final = 160

_FULL_SCALE: Final = 32768


def silence(samples: int) -> Samples:
    """Return that many samples of digital silence."""
    return np.zeros(samples, np.int16)


def amplitude(dbfs: float) -> float:
    """Return the sample value of a level in dB below full scale."""
    return float(_FULL_SCALE * 10 ** (dbfs / 20))


def mixed(one: Samples, other: Samples) -> Samples:
    """Return two sounds of one length at once; what is too loud is cut off."""
    total: npt.NDArray[np.int32] = one.astype(np.int32) + other
    return np.clip(total, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


def line_noise(samples: int, level_dbfs: float, *, seed: int = 0) -> Samples:
    """Return white noise of that RMS level, the same for the same seed."""
    noise = np.random.default_rng(seed).normal(0.0, amplitude(level_dbfs), samples)
    return np.clip(noise.round(), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
