"""Virtual time for asyncio: a minute of phone call in no time, in the same order each time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from .clock import VirtualClock

__all__ = ["VirtualTimeLoop", "run_in_virtual_time"]

T = TypeVar("T")


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` like ``asyncio.run``, but jump over each wait instead of sitting it out.

    Inside, ``asyncio.get_running_loop().time`` is the clock; it starts at 0 s and moves only while all tasks wait.

    Example:
        >>> run_in_virtual_time(asyncio.sleep(3600))
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing else is left to do.

    It does not wait for other threads and sockets while a timer is pending: what they do takes no virtual time.
    """

    def __init__(self) -> None:
        self._virtual_clock = VirtualClock()
        super().__init__(_JumpingSelector(self._virtual_clock))

    def time(self) -> float:
        """Return the present virtual time, in seconds."""
        return self._virtual_clock()


class _JumpingSelector(selectors.BaseSelector):
    """Where the loop would block until a timer, time jumps to it."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._selector = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return self._selector.select(None)
        ready = self._selector.select(0)
        if not ready and timeout > 0:
            self._clock.advance(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._selector.get_map()

    def close(self) -> None:
        self._selector.close()
