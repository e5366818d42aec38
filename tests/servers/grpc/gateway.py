"""A gateway for the tests: a server on a real socket, and a stock client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from tests.servers.grpc import wire
from tests.servers.helpers import edge_around
from voice_llm.servers.edge import Edge
from voice_llm.servers.grpc import GrpcServer
from voice_llm.testing import FakeBackend

Turns = Sequence[tuple[str, str]]


@dataclass
class Reply:
    text: str
    tokens: list[bytes]
    reason: str
    prompt_tokens: int
    completion_tokens: int


class Gateway:
    """A client of GenerateStream that knows the contract's table only."""

    def __init__(self, channel: grpc.aio.Channel, target: str) -> None:
        self.channel = channel
        self.target = target
        self._method = channel.unary_stream(
            wire.METHOD,
            request_serializer=wire.kind("GenerateStreamRequest").SerializeToString,
            response_deserializer=wire.kind("GenerateStreamResponse").FromString,
        )

    def start(
        self,
        user_prompt: str,
        *,
        history: Turns = (),
        tenant: str | None = "acme",
        call_id: str | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        timeout_s: float | None = None,
        **fields: Any,
    ) -> grpc.aio.UnaryStreamCall[Any, Any]:
        turns = [wire.message("ConversationTurn", role=role, content=content) for role, content in history]
        if params := fields.pop("params", None):
            fields["params"] = wire.message("GenerationParams", **params)
        request = wire.message("GenerateStreamRequest", user_prompt=user_prompt, history=turns, **fields)
        named = [("x-tenant-id", tenant), ("x-call-id", call_id)]
        sent = [*metadata, *((name, value) for name, value in named if value is not None)]
        return self._method(request, metadata=sent, timeout=timeout_s)

    async def ask(self, user_prompt: str, **options: Any) -> Reply:
        return await read(self.start(user_prompt, **options))

    async def refusal(self, user_prompt: str = "Hello?", **options: Any) -> grpc.aio.AioRpcError:
        return await refusal_of(self.start(user_prompt, **options))


async def read(call: grpc.aio.UnaryStreamCall[Any, Any]) -> Reply:
    messages = [message async for message in call]
    assert [m.WhichOneof("type") for m in messages] == ["token"] * (len(messages) - 1) + ["finish_details"]
    tokens = [m.token for m in messages[:-1]]
    details = messages[-1].finish_details
    text = b"".join(tokens).decode()
    return Reply(text, tokens, details.finish_reason, details.prompt_tokens, details.completion_tokens)


async def refusal_of(call: Any) -> grpc.aio.AioRpcError:
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the request was not refused")


def trailer(error: grpc.aio.AioRpcError, name: str) -> str | None:
    for key, value in error.trailing_metadata() or ():
        if key == name:
            return str(value)
    return None


@asynccontextmanager
async def serving(edge: Edge) -> AsyncIterator[Gateway]:
    """Serve an edge, and hold a channel to it."""
    server = GrpcServer(edge)
    port = await server.start()
    try:
        target = f"127.0.0.1:{port}"
        async with grpc.aio.insecure_channel(target) as channel:
            yield Gateway(channel, target)
    finally:
        await server.stop()


@asynccontextmanager
async def gateway_to(backend: FakeBackend | None = None, **options: Any) -> AsyncIterator[Gateway]:
    """Serve a ready engine on the fake backend, and hold a channel to it."""
    async with edge_around(backend, **options) as edge, serving(edge) as gateway:
        yield gateway
