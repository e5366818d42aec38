"""Objective: what a run has to hold, such as ``first_chunk_p95<=0.8s,gaps<=1%``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..config.explain import unknown
from ..errors import ConfigError
from .judged import JudgedRun
from .metrics import SHARES, TIMES, at_percentile, share_of

__all__ = ["Bound", "Checked", "check_objective", "parse_objective"]

_BOUND: Final = re.compile(r"([a-z_]+?)(?:_p(\d{1,2}(?:\.\d+)?)|_(max))?\s*(<=|>=|<|>)\s*(\d+(?:\.\d+)?)\s*(ms|s|%)?")
_DEFAULT_PERCENT: Final = 95.0
_EXAMPLE: Final = "such as first_chunk_p95<=0.8s or gaps<=1%"


@dataclass(frozen=True, slots=True)
class Bound:
    """One thing that has to hold.

    Attributes:
        text: As it was written.
        metric: A name of ``TIMES`` or ``SHARES``.
        percent: Which percentile of the turns, for a time.
        operator: ``<=``, ``<``, ``>=`` or ``>``.
        limit: Milliseconds, or a share from 0 to 1.
    """

    text: str
    metric: str
    percent: float
    operator: str
    limit: float

    def measure(self, run: JudgedRun) -> float | None:
        """Return the figure that is bounded; None where the run has none."""
        if self.metric in TIMES:
            return at_percentile(run, self.metric, self.percent)
        return share_of(run, self.metric)

    def holds(self, value: float) -> bool:
        """Whether a figure is within the bound."""
        return {
            "<=": value <= self.limit,
            "<": value < self.limit,
            ">=": value >= self.limit,
            ">": value > self.limit,
        }[self.operator]


@dataclass(frozen=True, slots=True)
class Checked:
    """A bound, and what the run had.

    Attributes:
        bound: What has to hold.
        value: Milliseconds or a share; None where nothing was measured, which holds no bound.
    """

    bound: Bound
    value: float | None

    @property
    def met(self) -> bool:
        """Whether it holds."""
        return self.value is not None and self.bound.holds(self.value)

    @property
    def found(self) -> str:
        """The figure in words."""
        if self.value is None:
            return "nothing was measured"
        return f"{self.value:.0f} ms" if self.bound.metric in TIMES else f"{self.value:.1%}"


def parse_objective(text: str) -> tuple[Bound, ...]:
    """Read bounds, separated by commas.

    A time has a percentile (``_p50``, ``_p95``, ``_p99``, ``_max``; 95 where none is given) and ``ms`` or ``s``, a
    share has ``%``.

    Raises:
        ConfigError: One cannot be read, or names what is not measured.
    """
    return tuple(_bound(part.strip()) for part in text.split(",") if part.strip())


def check_objective(bounds: Sequence[Bound], run: JudgedRun) -> tuple[Checked, ...]:
    """Hold a run against bounds."""
    return tuple(Checked(bound, bound.measure(run)) for bound in bounds)


def _bound(text: str) -> Bound:
    match = _BOUND.fullmatch(text)
    if match is None:
        raise ConfigError(f"the objective has {text!r}, which is no bound, {_EXAMPLE}", param="objective")
    metric, percent, most, operator, number, unit = match.groups()
    if metric in TIMES and unit in ("ms", "s"):
        percentile = 100.0 if most else float(percent or _DEFAULT_PERCENT)
        return Bound(text, metric, percentile, operator, float(number) * (1e3 if unit == "s" else 1))
    if metric in SHARES and unit == "%" and not (percent or most):
        return Bound(text, metric, 0.0, operator, float(number) / 100)
    if metric in TIMES:
        raise ConfigError(f"{metric} is a time: the objective must bound it in ms or s, {_EXAMPLE}", param="objective")
    if metric in SHARES:
        raise ConfigError(f"{metric} is a share: the objective must bound it in %, {_EXAMPLE}", param="objective")
    raise ConfigError(f"the objective has {unknown('metric', metric, [*TIMES, *SHARES])}", param="objective")
