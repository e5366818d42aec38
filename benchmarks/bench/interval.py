"""How far a percentile may be off, by how the values behind it vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

__all__ = ["interval"]

_RESAMPLES: Final = 1000
_LEVEL_PERCENT: Final = 95.0
_SEED: Final = 5


def interval(values: Sequence[float], percent: float) -> tuple[float, float] | None:
    """Return the 95 % interval of a percentile, by the percentile bootstrap; None without values.

    Values are taken as independent of each other. Turns of one round are not quite, so that the truth is a bit wider.
    """
    if not values:
        return None
    # The stream of this generator is promised to stay: with every version of numpy the same result has the same tables.
    drawn = np.random.RandomState(_SEED).randint(len(values), size=(_RESAMPLES, len(values)))
    found = np.percentile(np.asarray(values)[drawn], percent, axis=1)
    tail = (100 - _LEVEL_PERCENT) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return round(float(low), 1), round(float(high), 1)
