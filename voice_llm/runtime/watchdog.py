"""Watchdog: notices a step that never ends, which the engine's own thread cannot."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

__all__ = ["Watchdog"]

logger = logging.getLogger(__name__)


class Watchdog:
    """Asks now and then, on a thread of its own, and reports once for each time that the answer turns bad.

    Args:
        is_stalled: Asked every ``every_s`` seconds.
        on_stall: Called on the watchdog's thread; must not block.
        every_s: Seconds between two looks.
    """

    def __init__(self, is_stalled: Callable[[], bool], on_stall: Callable[[], None], *, every_s: float = 1.0) -> None:
        self._is_stalled = is_stalled
        self._on_stall = on_stall
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="voice-llm-watchdog", daemon=True)

    def start(self) -> None:
        """Start to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait for the thread; idempotent."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        reported = False
        while not self._stop.wait(self._every_s):
            stalled = self._is_stalled()
            if stalled and not reported:
                logger.error("the engine's present step does not end; its waiters are told")
                self._on_stall()
            reported = stalled
