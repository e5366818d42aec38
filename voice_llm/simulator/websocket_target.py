"""WebSocketTarget: calls over a server's WebSocket, one connection each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, ValidationError, model_validator

from ..errors import AtCapacityError, ConfigError, EngineDeadError
from ..events import Timings
from .chat_stream import shown
from .script import CallScript
from .session_call import Event, SessionCall, check_params
from .targets import TargetCall, TargetError

__all__ = ["WebSocketTarget"]


class WebSocketTarget:
    """A server that carries phone calls over WebSocket.

    How a call goes is said in ``SessionCall``.

    Args:
        url: The server, such as ``ws://127.0.0.1:16073``; calls are at ``/v1/calls/{call_id}``.
        params: Fields of each turn's ``params``, such as ``temperature``.
        headers: Sent with each opening, such as ``Authorization``.
        on_turn_end: Called with the server's own timings of each turn.
        timeout_s: Longest silence of the server while it is waited for.

    Raises:
        ConfigError: The package ``websockets`` is missing.
        InvalidRequestError: ``params`` has a field that the target sets.
    """

    def __init__(
        self,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        on_turn_end: Callable[[Timings], None] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        _import_websockets()
        self._params = check_params(params or {})
        self._url = url.rstrip("/")
        self._headers = dict(headers or {})
        self._on_turn_end = on_turn_end
        self._timeout_s = timeout_s

    async def open(self, script: CallScript, call_id: str) -> TargetCall:
        """See ``Target``.

        Raises:
            EngineDeadError: There is no server.
            AtCapacityError: The server has no room.
            TargetError: The server does not take the call.
        """
        websockets = _import_websockets()
        try:
            connection = await websockets.connect(
                f"{self._url}/v1/calls/{quote(call_id, safe='')}",
                additional_headers=self._headers,
                proxy=None,
                open_timeout=self._timeout_s,
            )
        except websockets.InvalidStatus as error:
            response = error.response
            reason = shown(response.body or b"")
            if response.status_code == 429:
                seconds = response.headers.get("Retry-After", "")
                raise AtCapacityError(reason, retry_after_s=float(seconds) if seconds.isdecimal() else 1.0) from None
            raise TargetError(f"HTTP {response.status_code}: {reason}", status=response.status_code) from None
        except (OSError, ValueError, TimeoutError, websockets.WebSocketException) as error:
            raise EngineDeadError(f"no call can be opened at {self._url}: {error}") from error
        return SessionCall(
            _WebSocketWire(connection),
            script,
            call_id,
            params=self._params,
            on_turn_end=self._on_turn_end,
            timeout_s=self._timeout_s,
        )


class _WebSocketWire:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        # A queue, so that events leave in order and a hint that is given up cancels no write under way.
        self._outgoing: asyncio.Queue[str] = asyncio.Queue()
        self._sending = asyncio.create_task(self._send())

    def send(self, event: Event) -> None:
        self._outgoing.put_nowait(json.dumps(event, ensure_ascii=False))

    async def events(self) -> AsyncIterator[Event]:
        websockets = _import_websockets()
        try:
            async for message in self._connection:
                yield _read(message)
        except websockets.ConnectionClosed as closed:
            raise TargetError(f"the server closed the connection: {closed}") from None

    async def close(self) -> None:
        self._sending.cancel()
        await asyncio.gather(self._sending, return_exceptions=True)
        await self._connection.close()

    async def _send(self) -> None:
        websockets = _import_websockets()
        while True:
            try:
                await self._connection.send(await self._outgoing.get())
            except websockets.ConnectionClosed:
                return  # whoever reads is told why


class _Event(BaseModel):
    """What of an event is read here; a field that is there must be what it should."""

    model_config = ConfigDict(extra="allow")

    type: str
    turn_id: str | None = None
    text: str = ""
    tool_call_id: str = ""
    name: str = ""
    arguments: dict[str, Any] = {}
    usage: dict[str, NonNegativeInt] = {}
    timings: dict[str, NonNegativeFloat | None] = {}

    @model_validator(mode="after")
    def _check_call(self) -> Self:
        if self.type == "tool_call" and not (self.tool_call_id and self.name):
            raise ValueError("a tool call has an id and a name")
        return self


def _read(message: str | bytes) -> Event:
    try:
        return _Event.model_validate_json(message).model_dump(exclude_unset=True)
    except ValidationError:
        sent = message if isinstance(message, bytes) else message.encode()
        raise TargetError(f"the server says what is no event: {shown(sent)}") from None


def _import_websockets() -> Any:
    try:
        import websockets
    except ImportError:
        raise ConfigError(
            'calling over WebSocket needs websockets: pip install "pipecat-voice-llm[simulator]"'
        ) from None
    return websockets
