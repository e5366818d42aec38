"""LoopMeter: how long an event loop is held up, as seen from outside."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

__all__ = ["LoopMeter", "Stall"]

_EVERY_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class Stall:
    """One ping of the loop.

    Attributes:
        wall_ms: Time until the loop came to it.
        cpu_ms: Processor time that the loop's thread took meanwhile: what its own callbacks are to blame for. The rest
            it spent waiting for a core or for the interpreter's lock.
    """

    wall_ms: float = 0.0
    cpu_ms: float = 0.0


class LoopMeter:
    """Pings the running event loop from a thread of its own, every two milliseconds, and keeps the worst pings.

    A synchronous context manager, to be entered on the loop::

        with LoopMeter() as meter:
            await work()
        assert meter.longest.cpu_ms < 20
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="loop-meter", daemon=True)
        self._cpu_clock = 0
        self._wall_ms: list[float] = []
        self.longest = Stall()
        """The ping for which the loop's own callbacks took longest."""
        self.slowest = Stall()
        """The ping that took longest, whoever is to blame."""

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._cpu_clock = time.pthread_getcpuclockid(threading.get_ident())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()

    @property
    def pings(self) -> int:
        """How often the loop was reached."""
        return len(self._wall_ms)

    def percentile_ms(self, share: float) -> float:
        """Return the time within which that share of the pings, between 0 and 1, was answered; 0 without any."""
        ordered = sorted(self._wall_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            stall = self._ping()
            if stall is None:
                return
            self._wall_ms.append(stall.wall_ms)
            self.longest = max(self.longest, stall, key=lambda s: s.cpu_ms)
            self.slowest = max(self.slowest, stall, key=lambda s: s.wall_ms)

    def _ping(self) -> Stall | None:
        reached = threading.Event()
        started_s, cpu_started_s = time.monotonic(), time.clock_gettime(self._cpu_clock)
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(reached.set)
        except RuntimeError:  # the loop is closed
            return None
        while not reached.wait(0.1):
            if self._stop.is_set():
                return None
        cpu_ms = (time.clock_gettime(self._cpu_clock) - cpu_started_s) * 1e3
        return Stall((time.monotonic() - started_s) * 1e3, cpu_ms)
