"""Percentiles of a handful of figures, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Percentiles", "bootstrap_interval", "percentile"]


def percentile(values: Iterable[float], percent: float) -> float:
    """Return a percentile of at least one value, by linear interpolation between the closest ranks."""
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percent / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def bootstrap_interval(
    values: Sequence[float], percent: float, *, confidence: float = 0.95, rounds: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return where a percentile of what the values are a sample of lies, by resampling them (Efron's bootstrap).

    Values are taken as independent of each other. Turns of one call are not quite, so that the truth is a bit wider.
    """
    # The stream of this generator is promised to stay: the same values always have the same interval.
    drawn = np.random.RandomState(seed).randint(len(values), size=(rounds, len(values)))
    found = np.percentile(np.asarray(values)[drawn], percent, axis=1)
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(found, [tail, 100 - tail])
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """The usual three, in the unit of the values, and how many values there were."""

    count: int
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Percentiles | None:
        """Summarise the values that are there; None where none is."""
        known = [value for value in values if value is not None]
        return cls(len(known), *(percentile(known, p) for p in (50, 95, 99))) if known else None
