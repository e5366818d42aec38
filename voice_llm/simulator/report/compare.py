"""Two runs side by side, and what got worse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from ..metrics import SHARES, TIMES
from .model import Report

__all__ = ["Change", "compare", "worse"]

Verdict = Literal["better", "worse", "same", ""]

# What differs less than this is as likely chance: a share of the figure, and milliseconds or a share of the run.
_RELATIVE: Final = 0.10
_LEAST_MS: Final = 10.0
_LEAST_SHARE: Final = 0.005


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of two runs.

    Attributes:
        name: What it is.
        before: Of the other run, as text; empty where it has none.
        now: Of this run.
        difference: From one to the other, as text.
        verdict: Whether it got better or worse by more than chance would do; empty where that cannot be said.
    """

    name: str
    before: str
    now: str
    difference: str = ""
    verdict: Verdict = ""


def compare(before: Report, now: Report) -> tuple[Change, ...]:
    """Hold a run against another, figure by figure."""
    return (*_times(before, now), *_shares(before, now), *_expectations(before, now))


def worse(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """Return what got worse."""
    return tuple(change for change in changes if change.verdict == "worse")


def _times(before: Report, now: Report) -> Iterator[Change]:
    for name, time in TIMES.items():
        old, new = before.times.get(name), now.times.get(name)
        if old is None and new is None:
            continue
        for label in ("p50", "p95", "p99"):
            title = f"{time.title}, {label}"
            if old is None or new is None:
                was, now_is = (f"{getattr(f, label):.0f} ms" if f else "" for f in (old, new))
                yield Change(title, was, now_is)
                continue
            a, b = getattr(old, label), getattr(new, label)
            bound = max(_LEAST_MS, _RELATIVE * a)
            share = f" ({(b - a) / a:+.0%})" if a else ""
            yield Change(title, f"{a:.0f} ms", f"{b:.0f} ms", f"{b - a:+.0f} ms{share}", _verdict(b - a, bound))


def _shares(before: Report, now: Report) -> Iterator[Change]:
    for name, share in SHARES.items():
        a, b = before.shares.get(name), now.shares.get(name)
        if a is None or b is None:
            continue
        growth = b - a if share.better == "low" else a - b
        points = f"{(b - a) * 100:+.1f} points"
        yield Change(share.title, f"{a:.1%}", f"{b:.1%}", points, _verdict(growth, _LEAST_SHARE))


def _expectations(before: Report, now: Report) -> Iterator[Change]:
    """Scenarios of both runs whose expectations came out differently."""
    old = {scenario.name: scenario for scenario in before.scenarios}
    for new in now.scenarios:
        if new.name not in old:
            continue
        a, b = old[new.name], new
        rates = [s.failed / max(1, s.passed + s.failed) for s in (a, b)]
        if rates[0] != rates[1]:
            title = f"{new.name}: expectations missed"
            verdict = _verdict(rates[1] - rates[0], 0.0)
            yield Change(
                title, f"{rates[0]:.1%}", f"{rates[1]:.1%}", f"{(rates[1] - rates[0]) * 100:+.1f} points", verdict
            )


def _verdict(growth: float, bound: float) -> Verdict:
    if abs(growth) <= bound:
        return "same"
    return "worse" if growth > 0 else "better"
