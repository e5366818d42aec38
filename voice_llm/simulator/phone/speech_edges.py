"""Where speech begins and ends, by its energy in frames of 10 ms."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .audio import SAMPLE_RATE, Samples, amplitude

__all__ = ["AUDIBLE_DBFS", "first_audible", "last_audible", "speech_regions"]

AUDIBLE_DBFS: Final = -45.0
"""RMS level from which a frame is heard; speech on a telephone is at -20 or so, a quiet line below -60."""

_FRAME_SAMPLES: Final = SAMPLE_RATE // 100
# Peaks of two neighbouring frames are less than this apart.
_LEAST_GAP_SAMPLES: Final = 2 * _FRAME_SAMPLES


def first_audible(samples: Samples, level_dbfs: float = AUDIBLE_DBFS) -> int | None:
    """Return the position of the first audible sample: the first loud one of the first loud frame."""
    regions = speech_regions(samples, level_dbfs=level_dbfs)
    return regions[0][0] if regions else None


def last_audible(samples: Samples, level_dbfs: float = AUDIBLE_DBFS) -> int | None:
    """Return the position after the last audible sample."""
    regions = speech_regions(samples, level_dbfs=level_dbfs)
    return regions[-1][1] if regions else None


def speech_regions(
    samples: Samples, *, level_dbfs: float = AUDIBLE_DBFS, merge_gap_s: float = 0.0
) -> list[tuple[int, int]]:
    """Return the stretches of audible sound.

    Args:
        samples: The sound.
        level_dbfs: RMS level from which a frame of 10 ms counts.
        merge_gap_s: Shorter silences than this do not end a stretch, nor do those below 20 ms.

    Returns:
        First sample, and the one after the last, of each stretch.
    """
    regions: list[tuple[int, int]] = []
    gap = max(merge_gap_s * SAMPLE_RATE, _LEAST_GAP_SAMPLES)
    loud = np.abs(samples.astype(np.int32)) >= amplitude(level_dbfs)
    for frame in np.flatnonzero(_frame_rms(samples) >= amplitude(level_dbfs)):
        # A frame of that RMS has at least one sample of that height.
        first = int(frame) * _FRAME_SAMPLES
        peaks = np.flatnonzero(loud[first : first + _FRAME_SAMPLES])
        start, end = first + int(peaks[0]), first + int(peaks[-1]) + 1
        if regions and start - regions[-1][1] < gap:
            regions[-1] = (regions[-1][0], end)
        else:
            regions.append((start, end))
    return regions


def _frame_rms(samples: Samples) -> npt.NDArray[np.float64]:
    padding = -len(samples) % _FRAME_SAMPLES
    frames = np.pad(samples.astype(np.float64), (0, padding)).reshape(-1, _FRAME_SAMPLES)
    rms: npt.NDArray[np.float64] = np.sqrt(np.mean(frames**2, axis=1))
    return rms
