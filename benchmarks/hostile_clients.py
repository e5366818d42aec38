"""How a client can behave badly: over HTTP, WebSocket and gRPC. Each behaviour is one connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc
from websockets.asyncio.client import ClientConnection, connect

from voice_llm._proto import call_pb2 as pb
from voice_llm._proto import call_pb2_grpc, llama_pb2, llama_pb2_grpc

from .server_process import ServerProcess

__all__ = ["BEHAVIOURS"]

_TENANT: Final = (("x-tenant-id", "hostile"),)
_LONG: Final = "Tell me everything about water damage, at length. "


@contextlib.asynccontextmanager
async def _tcp(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def _ws(server: ServerProcess) -> AsyncIterator[ClientConnection]:
    url = f"ws://{server.ws}/v1/calls/hostile-{random.randrange(2**32)}"
    ws = await connect(url, additional_headers={"x-tenant-id": "hostile"}, open_timeout=5, close_timeout=0.1)
    try:
        yield ws
        await ws.close()
    finally:
        # Who is cancelled while it closes, or wants to be gone, would leave the socket to the garbage collector.
        ws.transport.abort()


def _post(body: bytes, length: int | None = None) -> bytes:
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nx-tenant-id: hostile\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body


def _chat(text: str, **fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 64, **fields}).encode()


async def _http_stalls(server: ServerProcess, rng: random.Random) -> None:
    async with _tcp(server.http) as (_, writer):
        writer.write(_post(_chat(_LONG))[: rng.randrange(10, 120)])
        await asyncio.sleep(rng.uniform(1, 8))


async def _http_drips(server: ServerProcess, rng: random.Random) -> None:
    async with _tcp(server.http) as (_, writer):
        for byte in _post(_chat(_LONG)):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)


async def _http_breaks_off(server: ServerProcess, rng: random.Random) -> None:
    async with _tcp(server.http) as (reader, writer):
        writer.write(_post(_chat(_LONG, stream=True)))
        await reader.read(rng.randrange(1, 600))


async def _http_never_reads(server: ServerProcess, rng: random.Random) -> None:
    async with _tcp(server.http) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(_post(_chat(_LONG, stream=True)))
        await asyncio.sleep(rng.uniform(1, 5))


async def _http_garbage(server: ServerProcess, rng: random.Random) -> None:
    async with _tcp(server.http) as (reader, writer):
        writer.write(rng.randbytes(rng.randrange(1, 4000)))
        await reader.read(1000)


async def _http_too_much(server: ServerProcess, rng: random.Random) -> None:
    async with _tcp(server.http) as (reader, writer):
        writer.write(_post(_chat("x" * 2_000_000)))
        await reader.read(1000)


async def _http_nonsense(server: ServerProcess, rng: random.Random) -> None:
    bodies = [b"", b"{", b"[]", b"null", _chat(_LONG, n=7), _chat(_LONG, grammar='root ::= "'), b'{"messages": 3}']
    async with _tcp(server.http) as (reader, writer):
        writer.write(_post(rng.choice(bodies)))
        await reader.read(1000)


async def _ws_garbage(server: ServerProcess, rng: random.Random) -> None:
    async with _ws(server) as ws:
        for _ in range(5):
            await ws.send(rng.choice(["{", "[]", '{"type": "nonsense"}', "", '{"type": "turn"}']))
        await ws.recv()


async def _ws_binary_and_too_much(server: ServerProcess, rng: random.Random) -> None:
    async with _ws(server) as ws:
        await ws.send(rng.randbytes(50))
        await ws.send("x" * 2_000_000)
        await ws.recv()


async def _ws_out_of_order(server: ServerProcess, rng: random.Random) -> None:
    events = [
        {"type": "turn", "turn_id": "a", "text": "Hello?"},
        {"type": "confirm", "turn_id": "a"},
        {"type": "start"},
        {"type": "tool_result", "tool_call_id": "x", "result": 1},
        {"type": "withdraw", "turn_id": "b"},
        {"type": "played", "turn_id": "a", "index": 99, "played_ms": 1},
        {"type": "start"},
        {"type": "interrupt"},
    ]
    async with _ws(server) as ws:
        for event in rng.sample(events, len(events)):
            await ws.send(json.dumps(event))
            await asyncio.sleep(0.02)
        await ws.recv()


async def _ws_breaks_off(server: ServerProcess, rng: random.Random) -> None:
    async with _ws(server) as ws:
        await ws.send('{"type": "start"}')
        await ws.recv()
        await ws.send(json.dumps({"type": "turn", "turn_id": "a", "text": _LONG}))
        await asyncio.sleep(rng.uniform(0, 1))
        ws.transport.abort()


async def _ws_never_reads(server: ServerProcess, rng: random.Random) -> None:
    async with _ws(server) as ws:
        await ws.send('{"type": "start"}')
        ws.transport.pause_reading()
        for turn in range(20):
            await ws.send(json.dumps({"type": "turn", "turn_id": f"t{turn}", "text": _LONG}))
            await asyncio.sleep(0.1)


async def _grpc_garbage(server: ServerProcess, rng: random.Random) -> None:
    async with _tcp(server.grpc) as (reader, writer):
        writer.write(rng.randbytes(rng.randrange(1, 4000)))
        await reader.read(1000)


async def _grpc_breaks_off(server: ServerProcess, rng: random.Random) -> None:
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        request = llama_pb2.GenerateStreamRequest(user_prompt=_LONG)
        stream = llama_pb2_grpc.LlamaServiceStub(channel).GenerateStream(request, metadata=_TENANT)
        for _ in range(rng.randrange(4)):
            await stream.read()
        stream.cancel()


async def _grpc_stalls(server: ServerProcess, rng: random.Random) -> None:
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        stream = call_pb2_grpc.CallServiceStub(channel).Converse(metadata=_TENANT)
        if rng.random() < 0.5:
            await stream.write(pb.ClientEvent(start=pb.Start()))
        await asyncio.sleep(rng.uniform(1, 5))


async def _grpc_out_of_order(server: ServerProcess, rng: random.Random) -> None:
    events = [
        pb.ClientEvent(),
        pb.ClientEvent(confirm=pb.Confirm(turn_id="a")),
        pb.ClientEvent(start=pb.Start(profile="nonsense")),
        pb.ClientEvent(tool_result=pb.ToolResult(tool_call_id="x")),
        pb.ClientEvent(start=pb.Start()),
    ]
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        stream = call_pb2_grpc.CallServiceStub(channel).Converse(metadata=_TENANT)
        for event in rng.sample(events, len(events)):
            await stream.write(event)
        await stream.read()


async def _ws_much_of_everything(server: ServerProcess, rng: random.Random) -> None:
    events = [
        {"type": "start", "history": [{}] * 200_000},
        {"type": "start", "tools": [{}] * 200_000},
        {"type": "start", "params": {"stop": ["abc"] * 100_000}},
        {"type": "x" * 900_000},
    ]
    async with _ws(server) as ws:
        for event in rng.sample(events, len(events)):
            await ws.send(json.dumps(event))
        await ws.recv()


async def _grpc_much_of_everything(server: ServerProcess, rng: random.Random) -> None:
    starts = [
        pb.Start(history=[pb.Message()] * 300_000),
        pb.Start(tools=[pb.Tool()] * 300_000),
        pb.Start(params=pb.Params(stop=["abc"] * 150_000)),
        pb.Start(params=pb.Params(lora_adapter_id="x" * 900_000)),
    ]
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        stream = call_pb2_grpc.CallServiceStub(channel).Converse(metadata=_TENANT)
        await stream.write(pb.ClientEvent(start=rng.choice(starts)))
        await stream.read()


async def _grpc_too_much(server: ServerProcess, rng: random.Random) -> None:
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        request = llama_pb2.GenerateStreamRequest(user_prompt="x" * 2_000_000)
        stream = llama_pb2_grpc.LlamaServiceStub(channel).GenerateStream(request, metadata=_TENANT)
        await stream.read()


BEHAVIOURS: Final[tuple[Callable[[ServerProcess, random.Random], Awaitable[None]], ...]] = (
    _http_stalls,
    _http_drips,
    _http_breaks_off,
    _http_never_reads,
    _http_garbage,
    _http_too_much,
    _http_nonsense,
    _ws_garbage,
    _ws_binary_and_too_much,
    _ws_out_of_order,
    _ws_breaks_off,
    _ws_much_of_everything,
    _ws_never_reads,
    _grpc_garbage,
    _grpc_breaks_off,
    _grpc_stalls,
    _grpc_out_of_order,
    _grpc_much_of_everything,
    _grpc_too_much,
)
