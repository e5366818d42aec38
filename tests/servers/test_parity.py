"""One conversation, six ways to hold it: the words are the same over every interface."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from websockets.asyncio.client import connect

from tests.servers.helpers import any_ports
from voice_llm import Engine, Profile, RemoteEngine, SamplingParams, TextDelta
from voice_llm._proto import call_pb2, call_pb2_grpc, llama_pb2, llama_pb2_grpc
from voice_llm.backend.llama import LlamaBackend, LlamaModel
from voice_llm.config import EngineConfig, ModelSource
from voice_llm.remote import EngineFace
from voice_llm.servers.edge import Edge
from voice_llm.servers.grpc import GrpcServer
from voice_llm.servers.host import EngineHost
from voice_llm.servers.http import HttpServer
from voice_llm.servers.ws import WsServer

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

CONFIG: Final = EngineConfig(
    sequences=4,
    context_per_call=1024,
    # Threads that wait for each other on a busy machine take a hundred times as long as one that need not.
    threads=1,
    threads_batch=1,
    micro_batch_tokens=512,
    flash_attention="off",
    kv_layout="split",
)
SYSTEM: Final = "You are the phone assistant of a bank. Answer in one short sentence."
SAMPLING: Final = SamplingParams(temperature=0.0, max_tokens=16)
QUESTIONS: Final = (
    "Hello, who am I speaking to?",
    "What is the capital of France?",
    "How can I open an account?",
    "Peki, bunu Türkçe söyler misiniz?",
    "Thank you, goodbye!",
)


class Served:
    """All servers around one engine."""

    def __init__(self, engine: Engine, http: int, grpc_port: int, ws: int) -> None:
        self.engine = engine
        self.http = f"http://127.0.0.1:{http}/v1"
        self.grpc = f"127.0.0.1:{grpc_port}"
        self.ws = f"ws://127.0.0.1:{ws}/v1/calls"


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Served]:
    profile = Profile(
        name="test",
        model=ModelSource(path=str(path)),
        system_prompt=SYSTEM,
        engine=CONFIG,
        sampling=SAMPLING,
    )

    async def load() -> Engine:
        return await Engine.start(LlamaBackend(LlamaModel(path), CONFIG), profile)

    host = EngineHost(load, profile_name=profile.name)
    host.start()
    engine = await host.wait_ready()
    edge = Edge.around(host, any_ports())
    servers = HttpServer(edge), GrpcServer(edge), WsServer(edge)
    try:
        yield Served(engine, *[await server.start() for server in servers])
    finally:
        await edge.close()
        for server in servers:
            await server.stop()
        await host.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(smollm2_path: Path) -> AsyncIterator[Served]:
    async with serving(smollm2_path) as found:
        yield found


Ask = Callable[[str], Awaitable[str]]
"""Says something in a conversation, and returns the reply."""


async def talk(ask: Ask) -> list[str]:
    return [(await ask(question)).strip() for question in QUESTIONS]


async def through_engine(engine: EngineFace) -> list[str]:
    messages = [{"role": "system", "content": SYSTEM}]
    async with engine.open_call() as call:

        async def ask(question: str) -> str:
            messages.append({"role": "user", "content": question})
            text = "".join([e.text async for e in call.generate(messages) if isinstance(e, TextDelta)])
            messages.append({"role": "assistant", "content": text})
            return text

        return await talk(ask)


async def over_remote_engine(served: Served) -> list[str]:
    async with await RemoteEngine.connect(served.grpc) as engine:
        return await through_engine(engine)


async def over_generate_stream(served: Served) -> list[str]:
    history: list[llama_pb2.ConversationTurn] = []
    metadata = (("x-tenant-id", "default"), ("x-call-id", "generate-stream"))
    async with grpc.aio.insecure_channel(served.grpc) as channel:
        stub = llama_pb2_grpc.LlamaServiceStub(channel)

        async def ask(question: str) -> str:
            request = llama_pb2.GenerateStreamRequest(user_prompt=question, history=history)
            text = b"".join([part.token async for part in stub.GenerateStream(request, metadata=metadata)]).decode()
            for role, content in (("user", question), ("assistant", text)):
                history.append(llama_pb2.ConversationTurn(role=role, content=content))
            return text

        return await talk(ask)


async def over_converse(served: Served) -> list[str]:
    numbers = itertools.count()
    async with grpc.aio.insecure_channel(served.grpc) as channel:
        stub = call_pb2_grpc.CallServiceStub(channel)
        stream = stub.Converse()
        await stream.write(call_pb2.ClientEvent(start=call_pb2.Start(call_id="converse")))
        assert (await stream.read()).HasField("ready")

        async def ask(question: str) -> str:
            turn = call_pb2.Turn(turn_id=str(next(numbers)), text=question)
            await stream.write(call_pb2.ClientEvent(turn=turn))
            text = ""
            while not (event := await stream.read()).HasField("turn_end"):
                text += event.chunk.text
            return text

        replies = await talk(ask)
        await stream.write(call_pb2.ClientEvent(end=call_pb2.End(reason="done")))
        assert (await stream.read()).ended.turns == len(QUESTIONS)
    return replies


async def over_http(served: Served) -> list[str]:
    messages: list[Any] = []
    async with AsyncOpenAI(base_url=served.http, api_key="unused", max_retries=0) as client:

        async def ask(question: str) -> str:
            messages.append({"role": "user", "content": question})
            stream = await client.chat.completions.create(
                model="test", messages=messages, stream=True, extra_headers={"x-call-id": "http"}
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
            messages.append({"role": "assistant", "content": text})
            return text

        return await talk(ask)


async def over_websocket(served: Served) -> list[str]:
    numbers = itertools.count()
    async with connect(f"{served.ws}/websocket") as socket:
        await socket.send(json.dumps({"type": "start"}))
        assert json.loads(await socket.recv())["type"] == "ready"

        async def ask(question: str) -> str:
            await socket.send(json.dumps({"type": "turn", "turn_id": str(next(numbers)), "text": question}))
            text = ""
            while (event := json.loads(await socket.recv()))["type"] != "turn_end":
                text += event["text"]
            return text

        replies = await talk(ask)
        await socket.send(json.dumps({"type": "end", "reason": "done"}))
        assert json.loads(await socket.recv())["turns"] == len(QUESTIONS)
    return replies


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def expected(served: Served) -> list[str]:
    return await through_engine(served.engine)


@pytest.mark.parametrize(
    "converse", [over_remote_engine, over_generate_stream, over_converse, over_http, over_websocket]
)
async def test_the_same_conversation_gives_the_same_words(
    converse: Callable[[Served], Awaitable[list[str]]], served: Served, expected: list[str]
) -> None:
    assert all(expected)
    assert len(set(expected)) > 1
    assert await converse(served) == expected
    await served.engine.check_integrity()
