"""What the tests of the WebSocket server share: a server on the loopback, and a client that speaks JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from tests.servers.helpers import any_ports, edge_around
from voice_llm.observer import Observer
from voice_llm.servers.edge import Edge
from voice_llm.servers.ws import WsServer
from voice_llm.testing import FakeBackend

Event = dict[str, Any]


class Requests(Observer):
    """Notes the requests that have ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []

    def request_ended(self, interface: str, code: str, took_s: float) -> None:
        assert took_s >= 0
        self.ended.append((interface, code))


@dataclass(frozen=True, slots=True)
class Served:
    """A server and where it is."""

    edge: Edge
    server: WsServer
    port: int
    requests: Requests

    def url(self, call_id: str = "c1", query: str = "") -> str:
        return f"ws://127.0.0.1:{self.port}/v1/calls/{call_id}{query}"

    @asynccontextmanager
    async def client(self, call_id: str = "c1", query: str = "", **options: Any) -> AsyncIterator[Client]:
        async with connect(self.url(call_id, query), **options) as connection:
            yield Client(connection)

    @asynccontextmanager
    async def call(self, call_id: str = "c1", **start: Any) -> AsyncIterator[Client]:
        """A client whose call is ready."""
        async with self.client(call_id) as client:
            await client.start(**start)
            yield client


class Client:
    """Speaks the call contract."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, kind: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"type": kind} | fields, ensure_ascii=False))

    async def next(self) -> Event:
        event: Event = json.loads(await self.connection.recv())
        return event

    async def expect(self, kind: str) -> Event:
        event = await self.next()
        assert event["type"] == kind, event
        return event

    async def until(self, kind: str) -> list[Event]:
        """All events up to the first of a kind, that one too."""
        events = [await self.next()]
        while events[-1]["type"] != kind:
            events.append(await self.next())
        return events

    async def start(self, **fields: Any) -> Event:
        await self.send("start", **fields)
        return await self.expect("ready")

    async def turn(self, text: str, turn_id: str = "t1") -> list[Event]:
        await self.send("turn", turn_id=turn_id, text=text)
        return await self.until("turn_end")

    async def closed(self) -> Close:
        """Read to the end; returns the server's close frame."""
        with pytest.raises(ConnectionClosed) as e:
            await self._read_on()
        assert e.value.rcvd is not None, "the connection ended without a close frame"
        return e.value.rcvd

    async def _read_on(self) -> NoReturn:
        while True:
            await self.connection.recv()

    async def refused(self) -> tuple[Event, Close]:
        """The fatal error and the close frame that follows it."""
        error = await self.expect("error")
        assert error["fatal"] is True
        return error, await self.closed()


def said(events: list[Event]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "chunk")


@asynccontextmanager
async def serving(
    backend: FakeBackend | None = None,
    *,
    stalled_after_s: float = 4.0,
    max_calls: int | None = None,
    **config: Any,
) -> AsyncIterator[Served]:
    """A server around an engine that loses nothing."""
    requests = Requests()
    async with edge_around(backend, config=any_ports(**config), observer=requests, max_calls=max_calls) as edge:
        server = WsServer(edge, stalled_after_s=stalled_after_s)
        port = await server.start()
        try:
            yield Served(edge, server, port, requests)
        finally:
            await server.stop()
