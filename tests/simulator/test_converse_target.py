"""A server over gRPC as a target: a real one on loopback, and a stand-in where it has to misbehave."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.servers.grpc.gateway import gateway_to
from voice_llm._proto import call_pb2 as pb
from voice_llm._proto import call_pb2_grpc
from voice_llm.errors import EngineDeadError, InvalidRequestError, WrongStateError
from voice_llm.events import Timings, Usage
from voice_llm.simulator import (
    CallerTurn,
    CallScript,
    ChatMessages,
    ConverseTarget,
    TargetCall,
    TargetError,
    run_calls,
)
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

SCRIPT = CallScript(turns=(CallerTurn("Merhaba?", max_tokens=40), CallerTurn("And fire?")), rag_context="Poliçe NH 1.")
PATIENCE_S = 20.0
Answer = Callable[["Line"], Awaitable[None]]


def asking(text: str) -> ChatMessages:
    return [{"role": "user", "content": text}]


async def ask(call: TargetCall, text: str, max_tokens: int | None = None) -> str:
    async with asyncio.timeout(PATIENCE_S):
        return "".join([piece async for piece in call.turn(asking(text), max_tokens)])


@asynccontextmanager
async def target(**options: Any) -> AsyncIterator[tuple[ConverseTarget, FakeBackend]]:
    """A target on a real server; the server ends clean, so no call is left open."""
    backend = FakeBackend()
    async with gateway_to(backend) as gateway, ConverseTarget(gateway.target, **options) as there:
        yield there, backend


class Line:
    """The stand-in's side of one call."""

    def __init__(self, requests: AsyncIterator[pb.ClientEvent], context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._requests = requests
        self.context = context
        self.heard: list[pb.ClientEvent] = []

    async def hear(self) -> pb.ClientEvent:
        event = await anext(self._requests)
        self.heard.append(event)
        return event

    async def say(self, **event: Any) -> None:
        await self.context.write(pb.ServerEvent(**event))


@asynccontextmanager
async def stand_in(answer: Answer, **options: Any) -> AsyncIterator[tuple[ConverseTarget, list[Line]]]:
    lines: list[Line] = []

    class Service(call_pb2_grpc.CallServiceServicer):
        async def Converse(self, requests: Any, context: Any) -> None:  # noqa: N802
            lines.append(Line(requests, context))
            await answer(lines[-1])

    server = grpc.aio.server()
    call_pb2_grpc.add_CallServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with ConverseTarget(f"127.0.0.1:{port}", **options) as there:
            yield there, lines
    finally:
        await server.stop(None)


async def test_callers_hold_their_calls_over_a_real_server() -> None:
    timings: list[Timings] = []
    async with target(on_turn_end=timings.append) as (there, _):
        result = await run_calls(there, [SCRIPT] * 3, concurrent=2, speed=100.0)
    assert result.errors == ()
    assert [turn.text for turn in result.turns if turn.turn == 0] == ["You said Merhaba?. That makes 1."] * 3
    assert [turn.text for turn in result.turns if turn.turn == 1] == ["You said And fire?. That makes 2."] * 3
    assert all(turn.usage is not None and turn.usage.cached_tokens > 0 for turn in result.turns)
    assert len(timings) == 6
    assert all(timing.total_ms >= timing.first_chunk_ms > 0 for timing in timings if timing.total_ms)  # type: ignore[operator]


async def test_words_said_so_far_are_computed_before_the_turn_ends() -> None:
    async with target() as (there, backend):
        call = await there.open(SCRIPT, "c1")
        await ask(call, "Hello?")
        before = backend.counters.decoded_tokens
        said = "is the water in my kitchen covered by the policy that I have"
        await call.prefill(asking(said))
        async with asyncio.timeout(PATIENCE_S):
            while backend.counters.decoded_tokens - before < len(said):
                await asyncio.sleep(0.005)
        await ask(call, f"{said}?")
        usage = call.usage
        await call.close()
    assert usage is not None
    assert usage.prompt_tokens - usage.cached_tokens < 20


async def test_call_opens_with_its_prompt_and_each_turn_says_how_it_is_drawn() -> None:
    async def answer(line: Line) -> None:
        await line.hear()
        await line.say(ready=pb.Ready())
        turn = (await line.hear()).turn
        await line.say(chunk=pb.Chunk(turn_id=turn.turn_id, text="Evet."))
        usage = pb.Usage(prompt_tokens=9, cached_tokens=4, completion_tokens=2)
        await line.say(turn_end=pb.TurnEnd(turn_id=turn.turn_id, finish_reason="stop", usage=usage))
        await line.hear()

    async with stand_in(answer, params={"temperature": 0.0, "pacing": "off"}, tenant="acme") as (there, lines):
        call = await there.open(SCRIPT, "c7")
        assert await ask(call, "Merhaba?", 48) == "Evet."
        await call.close()
        assert call.usage == Usage(9, 4, 2)
    start, turn, end = (getattr(event, event.WhichOneof("event") or "") for event in lines[0].heard)
    assert (start.call_id, start.rag_context, start.params.pacing) == ("c7", "Poliçe NH 1.", "off")
    assert (turn.text, turn.params.max_tokens, turn.params.temperature) == ("Merhaba?", 48, 0.0)
    assert turn.params.HasField("temperature")
    assert end.reason == "hangup"
    assert dict(lines[0].context.invocation_metadata() or ())["x-tenant-id"] == "acme"


async def test_words_before_the_call_is_ready_are_not_sent_and_the_turn_waits() -> None:
    gate = asyncio.Event()

    async def answer(line: Line) -> None:
        await line.hear()
        await gate.wait()
        await line.say(ready=pb.Ready())
        turn = (await line.hear()).turn
        await line.say(turn_end=pb.TurnEnd(turn_id=turn.turn_id, finish_reason="stop"))
        await line.hear()

    async with stand_in(answer) as (there, lines):
        call = await there.open(SCRIPT, "c1")
        await call.prefill(asking("Mer"))
        asked = asyncio.create_task(ask(call, "Merhaba?"))
        gate.set()
        await asked
        await call.close()
    assert [event.WhichOneof("event") for event in lines[0].heard] == ["start", "turn", "end"]


async def test_reply_that_is_not_read_to_its_end_is_interrupted() -> None:
    async def answer(line: Line) -> None:
        await line.hear()
        await line.say(ready=pb.Ready())
        turn = (await line.hear()).turn
        await line.say(chunk=pb.Chunk(turn_id=turn.turn_id, text="Evet, "))
        await line.hear()
        await line.hear()

    async with stand_in(answer) as (there, lines):
        call = await there.open(SCRIPT, "c1")
        reply = call.turn(asking("Merhaba?"), None)
        assert await anext(reply) == "Evet, "
        await reply.aclose()
        await call.close()
    assert [event.WhichOneof("event") for event in lines[0].heard] == ["start", "turn", "interrupt", "end"]


async def test_second_call_of_the_same_id_is_refused_in_the_servers_words() -> None:
    async with target() as (there, _):
        first = await there.open(SCRIPT, "same")
        await ask(first, "Hello?")
        second = await there.open(SCRIPT, "same")
        with pytest.raises(WrongStateError, match="a call of that id is open"):
            await ask(second, "Hello?")
        await second.close()
        await first.close()


async def test_place_of_a_call_that_was_hung_up_is_free_at_once() -> None:
    async with target() as (there, _):
        for _ in range(3):
            call = await there.open(SCRIPT, "same")
            await ask(call, "Hello?")
            await call.close()


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"error": pb.Error(code="context_too_long", message="too long", turn_id="turn-1")}, "context_too_long"),
        ({"turn_end": pb.TurnEnd(turn_id="turn-1", finish_reason="error")}, "error"),
    ],
)
async def test_turn_that_fails_is_a_target_error(event: dict[str, Any], words: str) -> None:
    async def answer(line: Line) -> None:
        await line.hear()
        await line.say(ready=pb.Ready())
        await line.hear()
        await line.say(**event)
        while (await line.hear()).WhichOneof("event") != "end":
            pass

    async with stand_in(answer) as (there, _):
        call = await there.open(SCRIPT, "c1")
        with pytest.raises(TargetError, match=words):
            await ask(call, "Merhaba?")
        await call.close()


async def test_server_that_hangs_up_or_falls_silent_is_a_target_error() -> None:
    async def hangs_up(line: Line) -> None:
        await line.hear()

    async def is_silent(line: Line) -> None:
        await line.hear()
        await line.say(ready=pb.Ready())
        while (await line.hear()).WhichOneof("event") != "end":
            pass

    for answer, words in ((hangs_up, "ended the call"), (is_silent, "silent for 0.05 s")):
        async with stand_in(answer, timeout_s=0.05 if answer is is_silent else PATIENCE_S) as (there, _):
            call = await there.open(SCRIPT, "c1")
            with pytest.raises(TargetError, match=words):
                await ask(call, "Merhaba?")
            await call.close()


async def test_nobody_at_the_endpoint_is_an_error_of_the_call() -> None:
    with socket.socket() as bound:  # bound, and nobody listens
        bound.bind(("127.0.0.1", 0))
        there = ConverseTarget(f"127.0.0.1:{bound.getsockname()[1]}")
        call = await there.open(SCRIPT, "c1")
        with pytest.raises(EngineDeadError):
            await ask(call, "Merhaba?")
        await call.close()
        await there.close()


@pytest.mark.parametrize("params", [{"max_tokens": 4}, {"warmth": 1}, {"temperature": "hot"}])
def test_parameters_that_cannot_be_sent_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        ConverseTarget("127.0.0.1:1", params=params)
