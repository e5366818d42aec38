"""Incoming: a connection's messages as events of the call contract."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import NoReturn

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from ...errors import InvalidRequestError
from ...session.contract import ClientEvent, Start, parse_client_event

__all__ = ["Incoming", "read_event"]


class Incoming:
    """Reads a connection until it ends.

    Attributes:
        refused: Why reading ended before the connection did; None where it did not.
    """

    def __init__(self, connection: ServerConnection, *, call_id: str, resume: Start | None) -> None:
        self.refused: InvalidRequestError | None = None
        self._connection = connection
        self._call_id = call_id
        self._resume = resume

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
                yield read_event(message, self._call_id)


def read_event(message: str, call_id: str) -> ClientEvent | InvalidRequestError:
    """Return the event that a message is, or why it is none; ``start`` is given the path's call id."""
    try:
        fields = json.loads(message, parse_constant=_refuse_constant)
        json.dumps(fields, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        return InvalidRequestError("the message is not JSON")
    if not isinstance(fields, dict):
        return InvalidRequestError("the message is not a JSON object")
    try:
        event = parse_client_event(fields)
    except InvalidRequestError as e:
        return e
    if not isinstance(event, Start):
        return event
    if event.call_id not in ("", call_id):
        return InvalidRequestError("call_id is another than the path's", param="call_id")
    return dataclasses.replace(event, call_id=call_id)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
