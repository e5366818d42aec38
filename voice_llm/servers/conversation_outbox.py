"""Outbox and EventLog: what a call says, on its way over a connection, and kept for the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from ..errors import InvalidRequestError, SlowConsumerError, VoiceLLMError
from ..session import CallError, CallThought, CallToolCall, Chunk, Ready, SessionEvent, TurnEnd

__all__ = ["EventLog", "Outbox"]

# From so many unread events on, whoever has something to say waits for the reader, which is gone if it takes none.
_FULL_EVENTS: Final = 256

_KEPT_TURNS: Final = 8
_KEPT_EVENTS: Final = 16_384
_KEPT_CHARS: Final = 1 << 20


class Outbox:
    """The events of one connection; ``next`` hands them out, and ``room`` keeps those bounded that put them in.

    Args:
        patience_s: How long a full one waits for its reader to take an event; then it is taken to be gone.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._events: deque[SessionEvent] = deque()
        self._error: VoiceLLMError | None = None
        self._closed = False
        self._hurried = False
        self._arrived = asyncio.Event()
        self._read = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def closed(self) -> bool:
        """Whether nothing more goes in."""
        return self._closed

    def push(self, event: SessionEvent) -> None:
        """Put an event in; it is dropped where the connection is over."""
        if not self._closed:
            self._events.append(event)
            self._arrived.set()

    def hurry(self) -> None:
        """Let nobody wait for the reader any more: what is still to be said is little."""
        self._hurried = True
        self._read.set()

    async def room(self) -> None:
        """Wait until the reader has caught up, if need be.

        Raises:
            SlowConsumerError: It takes nothing any more.
        """
        while len(self._events) >= _FULL_EVENTS and not self._closed and not self._hurried:
            self._read.clear()
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._read.wait()
            except TimeoutError:
                raise SlowConsumerError(f"{len(self._events)} events of a call were not read") from None

    def close(self, error: VoiceLLMError | None = None, *, now: bool = False) -> None:
        """Let the reader come to the end, or to an error, after what is in it, or at once; the first close counts."""
        if not self._closed:
            self._closed = True
            self._error = None if error is None else error.as_value()
            if now:
                self._events.clear()
            self._arrived.set()
            self._read.set()

    async def next(self) -> SessionEvent | None:
        """Return the next event; None at the end.

        Raises:
            VoiceLLMError: The connection was closed with it.
        """
        while not self._events:
            if self._error is not None:
                raise self._take_error(self._error)
            if self._closed:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        self._read.set()
        return self._events.popleft()

    def _take_error(self, error: VoiceLLMError) -> VoiceLLMError:
        """Return the error and forget it: its traceback would hold the outbox, and the outbox it."""
        self._error = None
        return error


class EventLog:
    """The events of the last few turns, for a connection that takes the call up again."""

    def __init__(self) -> None:
        self._events: deque[SessionEvent] = deque()
        self._told: dict[str, int] = {}
        self._ends = 0
        self._chars = 0

    def __len__(self) -> int:
        return len(self._events)

    def append(self, event: SessionEvent) -> None:
        """Keep an event, and forget the oldest turn where there are too many."""
        if isinstance(event, Ready):
            return  # each connection begins with its own
        if isinstance(event, Chunk):
            self._told[event.turn_id] = event.index
        self._events.append(event)
        self._ends += isinstance(event, TurnEnd)
        self._chars += _chars(event)
        while self._ends > _KEPT_TURNS or len(self._events) > _KEPT_EVENTS or self._chars > _KEPT_CHARS:
            forgotten = self._events.popleft()
            self._ends -= isinstance(forgotten, TurnEnd)
            self._chars -= _chars(forgotten)

    def since(self, turn_id: str, index: int) -> list[SessionEvent]:
        """Return what came after a chunk, as far as it is kept; all that is kept where no turn is named.

        Raises:
            InvalidRequestError: There was no such chunk.
        """
        events = list(self._events)
        if not turn_id:
            return events
        if not 0 <= index <= self._told.get(turn_id, -1):
            raise InvalidRequestError("the call has no such chunk to go on from", param="last_index")
        for place, event in enumerate(events):
            if isinstance(event, Chunk) and (event.turn_id, event.index) == (turn_id, index):
                return events[place + 1 :]
        return events


def _chars(event: SessionEvent) -> int:
    """Return how much text an event holds, roughly."""
    match event:
        case Chunk(text=text) | CallThought(text=text):
            return len(text)
        case CallToolCall():
            return len(event.name) + len(str(event.arguments))
        case CallError():
            return len(event.message)
        case _:
            return 0
