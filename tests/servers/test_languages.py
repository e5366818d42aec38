"""A call of another language than the profile's: sentences end as that language has them, over each interface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from websockets.asyncio.client import connect

from tests.servers.helpers import edge_around
from tests.servers.test_error_table import Converse, Situation, WebSocket, edge_in
from voice_llm import RemoteEngine, SentenceChunk
from voice_llm._proto import call_pb2, call_pb2_grpc, engine_pb2, engine_pb2_grpc
from voice_llm.errors import InvalidRequestError
from voice_llm.servers.edge import Edge
from voice_llm.servers.grpc import GrpcServer
from voice_llm.servers.ws import WsServer
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

PATIENCE_S: Final = 20.0
TURKISH: Final = ["Poliçenizin 3. Maddesi bunu kapsıyor.", "Tamam mı?"]
ENGLISH: Final = ["Poliçenizin 3.", "Maddesi bunu kapsıyor.", "Tamam mı?"]

Language = str | None
Hold = Callable[[Edge, Language], Awaitable[list[str]]]
"""Holds a call of a language, asks once, and returns the chunks of the reply."""


def _start(language: Language) -> dict[str, Any]:
    return {} if language is None else {"language": language}


async def over_converse(edge: Edge, language: Language) -> list[str]:
    server = GrpcServer(edge)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{await server.start()}") as channel:
            stream = call_pb2_grpc.CallServiceStub(channel).Converse()
            await stream.write(call_pb2.ClientEvent(start=ParseDict(_start(language), call_pb2.Start())))
            assert (await stream.read()).HasField("ready")
            await stream.write(call_pb2.ClientEvent(turn=call_pb2.Turn(turn_id="t1", text="Alo")))
            chunks = []
            while not (event := await stream.read()).HasField("turn_end"):
                chunks.append(event.chunk.text)
            await stream.write(call_pb2.ClientEvent(end=call_pb2.End()))
            assert (await stream.read()).HasField("ended")
            return chunks
    finally:
        await server.stop()


async def over_websocket(edge: Edge, language: Language) -> list[str]:
    server = WsServer(edge)
    try:
        async with connect(f"ws://127.0.0.1:{await server.start()}/v1/calls/c1") as socket:
            await socket.send(json.dumps({"type": "start", **_start(language)}))
            assert json.loads(await socket.recv())["type"] == "ready"
            await socket.send(json.dumps({"type": "turn", "turn_id": "t1", "text": "Alo"}))
            chunks = []
            while (event := json.loads(await socket.recv()))["type"] != "turn_end":
                chunks.append(event["text"])
            await socket.send(json.dumps({"type": "end"}))
            assert json.loads(await socket.recv())["type"] == "ended"
            return chunks
    finally:
        await server.stop()


async def over_remote_engine(edge: Edge, language: Language, *, by_turn: bool = False) -> list[str]:
    server = GrpcServer(edge)
    try:
        async with (
            await RemoteEngine.connect(f"127.0.0.1:{await server.start()}") as engine,
            engine.open_call(language=None if by_turn else language) as call,
        ):
            assert call.language == ("en" if by_turn or language is None else language)
            reply = call.generate([{"role": "user", "content": "Alo"}], language=language if by_turn else None)
            return [event.text async for event in reply if isinstance(event, SentenceChunk)]
    finally:
        await server.stop()


async def by_turn_of_remote_engine(edge: Edge, language: Language) -> list[str]:
    return await over_remote_engine(edge, language, by_turn=True)


@pytest.mark.parametrize(
    ("language", "expected"), [(None, ENGLISH), ("tr", TURKISH), ("tr-TR", TURKISH), ("fi", ENGLISH)]
)
@pytest.mark.parametrize("hold", [over_converse, over_websocket, over_remote_engine, by_turn_of_remote_engine])
async def test_sentences_end_as_in_the_calls_language(hold: Hold, language: Language, expected: list[str]) -> None:
    async with edge_around(FakeBackend(reply=lambda _: " ".join(TURKISH))) as edge, asyncio.timeout(PATIENCE_S):
        assert [chunk.strip() for chunk in await hold(edge, language)] == expected


@pytest.mark.parametrize(
    ("interface", "status"), [(Converse, grpc.StatusCode.INVALID_ARGUMENT), (WebSocket, 4400)], ids=["grpc", "ws"]
)
async def test_start_with_what_is_no_language_is_refused(
    interface: type[Converse] | type[WebSocket], status: grpc.StatusCode | int
) -> None:
    situation = Situation(start={"language": "Turkish"})
    async with edge_in(situation) as edge, asyncio.timeout(PATIENCE_S):
        client = interface(edge)
        port = await client.server.start()
        try:
            async with client.calling(port, situation.start, {}) as call:
                refusal = await client.refusal(call)
        finally:
            await client.server.stop()
    assert (refusal.code, refusal.status) == ("invalid_request", status)
    assert "language" in refusal.message


async def test_what_is_no_language_is_refused_to_a_remote_engine_and_by_its_server() -> None:
    async with edge_around() as edge, asyncio.timeout(PATIENCE_S):
        server = GrpcServer(edge)
        endpoint = f"127.0.0.1:{await server.start()}"
        try:
            async with await RemoteEngine.connect(endpoint) as engine, engine.open_call() as call:
                for ask in (
                    lambda: engine.open_call(language="Turkish"),
                    lambda: call.generate([{"role": "user", "content": "Alo"}], language="Turkish"),
                ):
                    with pytest.raises(InvalidRequestError, match="language"):
                        ask()
            async with grpc.aio.insecure_channel(endpoint) as channel:
                stream = engine_pb2_grpc.EngineServiceStub(channel).HoldCall()
                await stream.write(engine_pb2.CallCommand(open=engine_pb2.Open(language="Turkish")))
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stream.read()
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                stream = engine_pb2_grpc.EngineServiceStub(channel).HoldCall()
                await stream.write(engine_pb2.CallCommand(open=engine_pb2.Open()))
                assert (await stream.read()).HasField("opened")
                command = engine_pb2.Generate(request_id=1, language="Turkish")
                command.prompt.messages = json.dumps([{"role": "user", "content": "Alo"}])
                await stream.write(engine_pb2.CallCommand(generate=command))
                error = (await stream.read()).error
                assert (error.code, error.param) == ("invalid_request", "language")
                await stream.done_writing()
                assert await stream.read() is grpc.aio.EOF
        finally:
            await server.stop()
