"""Percentiles of a handful of figures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Percentiles", "percentile"]


def percentile(values: Iterable[float], percent: float) -> float:
    """Return a percentile of at least one value, by linear interpolation between the closest ranks."""
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percent / 100
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


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
