"""How far a percentile may be off, by how the values behind it vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from voice_llm.simulator.percentiles import bootstrap_interval

__all__ = ["interval"]

_SEED: Final = 5


def interval(values: Sequence[float], percent: float) -> tuple[float, float] | None:
    """Return the 95 % interval of a percentile, rounded; None without values."""
    if not values:
        return None
    low, high = bootstrap_interval(values, percent, seed=_SEED)
    return round(low, 1), round(high, 1)
