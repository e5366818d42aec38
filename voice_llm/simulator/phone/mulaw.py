"""G.711 mu-law, the telephone's codec: 8 bits a sample, a sign, three bits of segment and four of step."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from .audio import Samples

__all__ = ["SILENCE_BYTE", "decode", "encode"]

SILENCE_BYTE: Final = 0xFF
"""What zero is encoded as."""

_BIAS: Final = 132
_CLIP: Final = 32767 - _BIAS


def encode(samples: Samples) -> bytes:
    """Return one byte for each sample."""
    linear = samples.astype(np.int32)
    magnitude = np.minimum(np.abs(linear), _CLIP) + _BIAS
    # The biased magnitude is at least 2**7: frexp gives its bit length, and so the segment, exactly.
    segment = np.frexp(magnitude)[1] - 8
    step = (magnitude >> (segment + 3)) & 0x0F
    sign = np.where(linear < 0, 0x80, 0)
    # All bits travel inverted, so that a quiet line is full of ones.
    encoded: bytes = (~(sign | segment << 4 | step) & 0xFF).astype(np.uint8).tobytes()
    return encoded


def decode(data: bytes) -> Samples:
    """Return one sample for each byte."""
    samples: Samples = _decoding_table()[np.frombuffer(data, np.uint8)]
    return samples


@cache
def _decoding_table() -> Samples:
    codes = ~np.arange(256) & 0xFF
    magnitude = (((codes & 0x0F) << 3) + _BIAS << (codes >> 4 & 0x07)) - _BIAS
    return np.where(codes & 0x80, -magnitude, magnitude).astype(np.int16)
