"""Each row of the error table where a call is started: over Converse and over WebSocket, on real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.runtime.helpers import profile
from tests.servers.helpers import any_ports
from voice_llm._proto import call_pb2 as pb
from voice_llm._proto import call_pb2_grpc
from voice_llm.runtime import Engine
from voice_llm.servers.edge import Edge
from voice_llm.servers.grpc import GrpcServer
from voice_llm.servers.host import EngineHost
from voice_llm.servers.ws import WsServer
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

PATIENCE_S = 20.0
KEYS = {"north-secret": "north"}

# As the contract has them: code -> gRPC status, close code.
TABLE = {
    "invalid_request": (grpc.StatusCode.INVALID_ARGUMENT, 4400),
    "unauthenticated": (grpc.StatusCode.UNAUTHENTICATED, 4401),
    "forbidden": (grpc.StatusCode.PERMISSION_DENIED, 4403),
    "not_found": (grpc.StatusCode.NOT_FOUND, 4404),
    "wrong_state": (grpc.StatusCode.FAILED_PRECONDITION, 4409),
    "context_too_long": (grpc.StatusCode.INVALID_ARGUMENT, 4400),
    "at_capacity": (grpc.StatusCode.RESOURCE_EXHAUSTED, 1013),
    "loading": (grpc.StatusCode.UNAVAILABLE, 1012),
    "draining": (grpc.StatusCode.UNAVAILABLE, 1012),
    "internal": (grpc.StatusCode.INTERNAL, 1011),
}
HINTED = {"at_capacity", "loading", "draining"}


@dataclass
class Situation:
    """What a call is refused in."""

    start: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    before: Callable[[Edge], Awaitable[object]] | None = None
    loads: bool = True


async def drain(edge: Edge) -> None:
    await edge.host.drain(0)


async def die(edge: Edge) -> None:
    engine = await edge.host.wait_ready()
    await engine.close()


SITUATIONS = {
    "invalid_request": Situation(start={"params": {"top_p": 2}}),
    "unauthenticated": Situation(config={"api_keys": KEYS}),
    "forbidden": Situation(
        config={"api_keys": KEYS}, headers={"authorization": "Bearer north-secret", "x-tenant-id": "south"}
    ),
    "not_found": Situation(start={"profile": "another"}),
    "wrong_state": Situation(start={"call_id": "open"}),
    "context_too_long": Situation(start={"system_prompt": "x" * 3000}),
    "at_capacity": Situation(config={"max_calls_per_tenant": 1}),
    "loading": Situation(loads=False),
    "draining": Situation(before=drain),
    "internal": Situation(before=die),
}


@dataclass
class Refusal:
    """What a client is told."""

    code: str | None
    status: grpc.StatusCode | int
    message: str
    retry_after_s: float


class Converse:
    """Starts calls over gRPC."""

    expected = 0

    def __init__(self, edge: Edge) -> None:
        self.server = GrpcServer(edge)

    @asynccontextmanager
    async def calling(self, port: int, start: Mapping[str, Any], headers: Mapping[str, str]) -> AsyncIterator[Any]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = call_pb2_grpc.CallServiceStub(channel).Converse(metadata=tuple(headers.items()))
            await stream.write(pb.ClientEvent(start=ParseDict(dict(start), pb.Start())))
            yield stream

    async def ready(self, stream: Any) -> None:
        assert (await stream.read()).HasField("ready")

    async def refusal(self, stream: Any) -> Refusal:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self._read_on(stream)
        trailers = dict(caught.value.trailing_metadata() or ())
        hint_s = float(trailers.get("retry-after-ms", 0)) / 1e3
        return Refusal(trailers.get("error-code"), caught.value.code(), caught.value.details() or "", hint_s)

    async def _read_on(self, stream: Any) -> None:
        while await stream.read() is not grpc.aio.EOF:
            pass


class WebSocket:
    """Starts calls over WebSocket."""

    expected = 1

    def __init__(self, edge: Edge) -> None:
        self.server = WsServer(edge)

    @asynccontextmanager
    async def calling(self, port: int, start: Mapping[str, Any], headers: Mapping[str, str]) -> AsyncIterator[Any]:
        url = f"ws://127.0.0.1:{port}/v1/calls/{start.get('call_id', 'c1')}"
        async with connect(url, additional_headers=dict(headers)) as connection:
            with suppress(ConnectionClosed):  # who may not call at all is told so before that
                await connection.send(json.dumps({"type": "start", **start}))
            yield connection

    async def ready(self, connection: Any) -> None:
        assert json.loads(await connection.recv())["type"] == "ready"

    async def refusal(self, connection: Any) -> Refusal:
        error = json.loads(await connection.recv())
        assert (error["type"], error["fatal"]) == ("error", True)
        with pytest.raises(ConnectionClosed) as caught:
            await connection.recv()
        assert caught.value.rcvd is not None
        return Refusal(error["code"], caught.value.rcvd.code, error["message"], error.get("retry_after_s") or 0.0)


@asynccontextmanager
async def edge_in(situation: Situation) -> AsyncIterator[Edge]:
    async def load() -> Engine:
        if not situation.loads:
            await asyncio.Event().wait()
        return await Engine.start(FakeBackend(), profile())

    config = any_ports(**situation.config)
    host = EngineHost(load, profile_name="test", max_per_tenant=config.max_calls_per_tenant)
    host.start()
    edge = Edge.around(host, config)
    try:
        if situation.loads:
            await host.wait_ready()
        yield edge
    finally:
        await edge.close()
        await host.close()


@pytest.mark.parametrize("code", TABLE)
@pytest.mark.parametrize("interface", [Converse, WebSocket])
async def test_start_is_refused_as_the_table_says(interface: type[Converse] | type[WebSocket], code: str) -> None:
    situation = SITUATIONS[code]
    async with edge_in(situation) as edge, AsyncExitStack() as open_calls, asyncio.timeout(PATIENCE_S):
        client = interface(edge)
        port = await client.server.start()
        open_calls.push_async_callback(client.server.stop)
        if code in ("wrong_state", "at_capacity"):
            first = await open_calls.enter_async_context(client.calling(port, {"call_id": "open"}, {}))
            await client.ready(first)
        if situation.before is not None:
            await situation.before(edge)
        async with client.calling(port, situation.start, situation.headers) as call:
            refusal = await client.refusal(call)
    assert (refusal.code, refusal.status) == (code, TABLE[code][client.expected])
    assert bool(refusal.retry_after_s) == (code in HINTED)
    assert len(refusal.message) > 10
