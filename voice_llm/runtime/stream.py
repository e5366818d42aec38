"""ReplyStream: one turn's events, on their way from the engine's thread to whoever reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from ..engine import Failed
from ..errors import SlowConsumerError, VoiceLLMError
from ..events import Finished, FinishReason, GenerateEvent, Prefilled

__all__ = ["ReplyStream"]

# A reply of 256 tokens makes at most about 600 events; a reader this far behind is gone.
_MAX_UNREAD_EVENTS: Final = 4096


class ReplyStream:
    """Asynchronous iterator over a turn's events; ``Finished`` is the last.

    Leaving the loop, cancelling the task that reads, ``cancel`` and closing the call all stop the generation at the
    next step. Nothing waits for the engine. (Leaving is noticed when the last reference goes, as with ``async for event
    in call.generate(...)``; whoever keeps one calls ``cancel``, or uses ``contextlib.aclosing``.)

    Raises (while iterating):
        VoiceLLMError: The turn failed.
        SlowConsumerError: Too many events were left unread; the turn was cancelled.
    """

    def __init__(
        self,
        cancel: Callable[[FinishReason], None],
        *,
        played: Callable[[int, float], None] | None = None,
        call: object = None,
    ) -> None:
        self._cancel = cancel
        self._played = played
        self._call = call  # a call that nobody holds is closed, and a reply in progress holds it
        self._events: deque[GenerateEvent] = deque()
        self._arrived = asyncio.Event()
        self._error: VoiceLLMError | None = None
        self._ended = False
        self.finished: Finished | None = None
        """The last event, once it has arrived."""

    def __aiter__(self) -> ReplyStream:
        return self

    async def __anext__(self) -> GenerateEvent:
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            try:
                await self._arrived.wait()
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self._events.popleft()

    def __del__(self) -> None:
        # Leaving an ``async for`` drops the last reference: that is how a reader says that it has heard enough.
        self.cancel()

    def cancel(self, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Stop the generation at the next step, without waiting; once more, or after the end, is harmless."""
        if not self._ended:
            self._cancel(reason)

    def played(self, index: int, played_ms: float) -> None:
        """Report what the caller has heard: sentence chunk ``index`` for ``played_ms``, and all before it.

        It corrects when the engine expects the caller to run out of speech; without reports, the speaking rate says.
        """
        if self._played is not None and not self._ended:
            self._played(index, played_ms)

    async def aclose(self) -> None:
        """Same as ``cancel``, for ``contextlib.aclosing``."""
        self.cancel()

    def push(self, event: GenerateEvent | Prefilled | Failed) -> None:
        """Take over an event; called on the event loop only."""
        if self._ended:
            return
        if isinstance(event, Failed):
            self._error = event.error
            self._ended = True
        elif isinstance(event, Prefilled):
            return
        else:
            self._append(event)
        self._arrived.set()

    def _append(self, event: GenerateEvent) -> None:
        if isinstance(event, Finished):
            self.finished = event
            self._ended = True
        elif len(self._events) >= _MAX_UNREAD_EVENTS:
            self.cancel()
            self._events.clear()
            self._error = SlowConsumerError(f"{_MAX_UNREAD_EVENTS} events of a reply were not read; it was cancelled")
            self._ended = True
            return
        self._events.append(event)
