"""Hints: what the caller says, told to the target while it is said."""

from __future__ import annotations

import asyncio

from .targets import ChatMessages, TargetCall

__all__ = ["Hints"]


class Hints:
    """Prefill hints on their way: the person speaks on and waits for none of them.

    Args:
        call: Who is told.
    """

    def __init__(self, call: TargetCall) -> None:
        self._call = call
        # In the order in which they were sent, so that a run in virtual time can be repeated.
        self._running: dict[asyncio.Task[None], None] = {}
        self.error: Exception | None = None
        """The first failure of one."""

    def send(self, messages: ChatMessages) -> None:
        """Tell what the next prompt is so far."""
        task = asyncio.create_task(self._prefill(messages))
        self._running[task] = None
        task.add_done_callback(lambda done: self._running.pop(done, None))

    async def stop(self) -> None:
        """Give up those that still run."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _prefill(self, messages: ChatMessages) -> None:
        try:
            await self._call.prefill(messages)
        except Exception as error:  # raised at the end of the call: a person who speaks cannot be stopped by it
            self.error = self.error or error
