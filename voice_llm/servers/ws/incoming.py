"""Incoming: a connection's messages as events of the call contract."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from ...errors import InvalidRequestError
from ...session.contract import ClientEvent, Start, parse_client_event
from ..strict_json import parse_json

__all__ = ["Incoming"]

# Reading more than this takes a millisecond or more, which the event loop has better uses for.
_READ_INLINE_CHARS: Final = 64 * 1024


class Incoming:
    """Reads a connection until it ends.

    Args:
        connection: What is read.
        call_id: The path's, which ``start`` is given.
        resume: The ``start`` that stands in the query; None where it is still to come.
        max_messages: Most messages of a history.

    Attributes:
        refused: Why reading ended before the connection did; None where it did not.
    """

    def __init__(self, connection: ServerConnection, *, call_id: str, resume: Start | None, max_messages: int) -> None:
        self.refused: InvalidRequestError | None = None
        self._connection = connection
        self._call_id = call_id
        self._resume = resume
        self._max_messages = max_messages

    async def events(self) -> AsyncIterator[ClientEvent | InvalidRequestError]:
        """Yield what the client sends; a message that cannot be read is yielded as an error."""
        if self._resume is not None:
            yield self._resume
        with suppress(ConnectionClosed):
            while True:
                message = await self._connection.recv()
                if isinstance(message, bytes):
                    self.refused = InvalidRequestError("events are text messages; a binary one cannot be read")
                    return
                if len(message) <= _READ_INLINE_CHARS:
                    yield self._event(message)
                else:
                    yield await asyncio.to_thread(self._event, message)

    def _event(self, message: str) -> ClientEvent | InvalidRequestError:
        """Return the event that a message is, or why it is none."""
        try:
            event = parse_client_event(parse_json(message), max_messages=self._max_messages)
        except InvalidRequestError as e:
            return e.as_value()
        if not isinstance(event, Start):
            return event
        if event.call_id not in ("", self._call_id):
            return InvalidRequestError("call_id is another than the path's", param="call_id")
        return dataclasses.replace(event, call_id=self._call_id)
