"""Arrivals: when callers dial who do not care how many others are on the phone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ..errors import ConfigError

__all__ = ["Arrivals", "parse_arrivals"]

_Times = Callable[[int, float], Iterator[float]]
_FIELDS: Final = {"poisson": 1, "ramp": 2, "bursts": 2, "spread": 1}
_FORMS: Final = "poisson:CALLS_A_MINUTE, ramp:FROM:TO (calls a minute), bursts:CALLS:EVERY_S or spread:CALLS"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When callers dial.

    Attributes:
        text: How it was asked for.
        times: From a seed and how long callers dial, in seconds, to the moments at which they do, in order.
    """

    text: str
    times: _Times


def parse_arrivals(text: str) -> Arrivals:
    """Read ``poisson:12``, ``ramp:2:30``, ``bursts:10:60`` or ``spread:1000``.

    ``poisson`` dials at random at a steady rate, ``ramp`` at one that grows from the first to the second figure over
    the run, ``bursts`` so many at once every so many seconds, ``spread`` so many in all, at random moments. Rates are
    calls a minute.

    Raises:
        ConfigError: It is none of these.
    """
    kind, *fields = text.split(":")
    try:
        numbers = [float(field) for field in fields]
    except ValueError:
        numbers = []
    if len(numbers) != _FIELDS.get(kind) or not _in_range(kind, numbers):
        raise ConfigError(f"arrivals are {text!r}; allowed is {_FORMS}", param="arrivals")
    return Arrivals(text, _MAKE[kind](*numbers))


def _in_range(kind: str, numbers: list[float]) -> bool:
    if kind in ("bursts", "spread"):
        return numbers[0] >= 1 and numbers[0].is_integer() and all(0 < number < 1e6 for number in numbers)
    return min(numbers) >= 0 and 0 < max(numbers) < 1e6


def _poisson(rate: float) -> _Times:
    return _ramp(rate, rate)


def _ramp(from_rate: float, to_rate: float) -> _Times:
    def times(seed: int, duration_s: float) -> Iterator[float]:
        """Thin out a steady stream of the highest rate (Lewis and Shedler)."""
        rng = random.Random(seed)
        most = max(from_rate, to_rate) / 60
        now_s = rng.expovariate(most)
        while now_s < duration_s:
            rate = (from_rate + (to_rate - from_rate) * now_s / duration_s) / 60
            if rng.random() * most < rate:
                yield now_s
            now_s += rng.expovariate(most)

    return times


def _bursts(calls: float, every_s: float) -> _Times:
    def times(seed: int, duration_s: float) -> Iterator[float]:
        number = 0
        while number * every_s < duration_s:
            yield from [number * every_s] * int(calls)
            number += 1

    return times


def _spread(calls: float) -> _Times:
    def times(seed: int, duration_s: float) -> Iterator[float]:
        rng = random.Random(seed)
        yield from sorted(rng.random() * duration_s for _ in range(int(calls)))

    return times


_MAKE: Final[Mapping[str, Callable[..., _Times]]] = {
    "poisson": _poisson,
    "ramp": _ramp,
    "bursts": _bursts,
    "spread": _spread,
}
