"""What a run shows while it goes on: the point, the time that is left, and what was found last."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from .ladder import Ladder, Plan, Planned
from .points import Point, Pooled

__all__ = ["Display"]

_TICK_S: Final = 1.0


class Display:
    """Progress of a run on a terminal; elsewhere a line a point.

    Args:
        plan: What is measured.
        ladder: What of it is left.
        console: Where it is shown.
    """

    def __init__(self, plan: Plan, ladder: Ladder, console: Console) -> None:
        self._plan = plan
        self._ladder = ladder
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[left]} left"),
            console=console,
            disable=not console.is_terminal,
        )
        self._left_s = ladder.seconds_left()
        self._until_s = time.monotonic() + self._left_s
        self._task = self._progress.add_task("starting", total=self._left_s, left=_hours(self._left_s))
        self._ended = threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="bench-display", daemon=True)

    def __enter__(self) -> Self:
        self._progress.start()
        self._ticking.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._ticking.join()
        self._progress.stop()

    def start(self, planned: Planned) -> None:
        """A point is begun."""
        words = f"round {planned.round + 1}/{self._plan.rounds}, {planned.calls} calls, {planned.system.name}"
        self._progress.update(self._task, description=words)

    def done(self, point: Point) -> None:
        """A point is measured, and the ladder has taken note of it."""
        self._console.print(
            f"round {point.round + 1}, {point.calls} calls, {point.system}: {found(point)}", markup=False
        )
        self._left_s = self._ladder.seconds_left()
        self._until_s = time.monotonic() + self._left_s

    def _tick(self) -> None:
        while not self._ended.wait(_TICK_S):
            left_s = max(0.0, self._until_s - time.monotonic())
            done_s = self._progress.tasks[0].completed
            # What systems that were given up would have taken is left out of the whole.
            self._progress.update(self._task, advance=_TICK_S, total=done_s + _TICK_S + left_s, left=_hours(left_s))


def found(point: Point) -> str:
    """Say in a few words what a point found."""
    pooled = Pooled((point,))
    speech_ms = pooled.ms("first_speech_ms", 95)
    words = "no speech" if speech_ms is None else f"first speech p95 {speech_ms:.0f} ms"
    broken = f", gaps in {pooled.gap_share:.0%} of {point.turns} turns"
    return words + broken + (f", {pooled.errors} errors" if pooled.errors else "")


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
