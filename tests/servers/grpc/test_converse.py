"""Converse: a phone call over one stream, with a stock client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.runtime.helpers import GatedBackend, idle
from tests.servers.grpc.gateway import gateway_to, refusal_of, serving, trailer
from tests.servers.helpers import any_ports, edge_around
from voice_llm._proto import call_pb2 as pb
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

METHOD = "/voice_llm.v1.CallService/Converse"
PATIENCE_S = 20.0


class Phone:
    """One stream."""

    def __init__(self, channel: grpc.aio.Channel, tenant: str | None = "acme") -> None:
        method: Any = channel.stream_stream(
            METHOD,
            request_serializer=lambda event: event if isinstance(event, bytes) else event.SerializeToString(),
            response_deserializer=pb.ServerEvent.FromString,
        )
        self.stream = method(metadata=[("x-tenant-id", tenant)] if tenant else [])

    async def say(self, **event: Any) -> None:
        await self.stream.write(pb.ClientEvent(**event))

    async def hear(self) -> pb.ServerEvent:
        async with asyncio.timeout(PATIENCE_S):
            event = await self.stream.read()
        assert event is not grpc.aio.EOF, "the stream has ended"
        assert isinstance(event, pb.ServerEvent)
        return event

    async def hear_all(self) -> list[pb.ServerEvent]:
        events: list[pb.ServerEvent] = []
        async with asyncio.timeout(PATIENCE_S):
            while (event := await self.stream.read()) is not grpc.aio.EOF:
                events.append(event)
        return events

    async def start(self, **fields: Any) -> pb.Ready:
        await self.say(start=pb.Start(**fields))
        return (await self.hear()).ready

    async def hear_turn(self) -> tuple[str, pb.TurnEnd]:
        text = ""
        while True:
            event = await self.hear()
            text += event.chunk.text
            if event.HasField("turn_end"):
                return text, event.turn_end

    async def refusal(self) -> grpc.aio.AioRpcError:
        async with asyncio.timeout(PATIENCE_S):
            return await refusal_of(self)

    async def __aiter__(self) -> AsyncIterator[pb.ServerEvent]:
        while (event := await self.stream.read()) is not grpc.aio.EOF:
            yield event


@asynccontextmanager
async def phone_to(backend: FakeBackend | None = None, **options: Any) -> AsyncIterator[Phone]:
    async with gateway_to(backend, **options) as gateway:
        yield Phone(gateway.channel)


async def test_call_is_held_from_start_to_end() -> None:
    async with phone_to() as phone:
        ready = await phone.start(call_id="c1", system_prompt="Kısa konuş.")
        assert (ready.call_id, bool(ready.resume_token)) == ("c1", True)
        assert ready.usage.prompt_tokens > 0
        texts = []
        for number, said in enumerate(("Merhaba?", "And fire?"), start=1):
            await phone.say(turn=pb.Turn(turn_id=f"t{number}", text=said))
            text, end = await phone.hear_turn()
            texts.append(text)
            assert (end.turn_id, end.finish_reason) == (f"t{number}", "stop")
            assert end.timings.total_ms >= end.timings.first_token_ms > 0
        assert end.usage.cached_tokens > 0
        await phone.say(end=pb.End(reason="hangup"))
        (ended,) = await phone.hear_all()
        code = await phone.stream.code()
    assert texts == ["You said Merhaba?. That makes 1.", "You said And fire?. That makes 2."]
    assert (ended.ended.reason, ended.ended.turns, code) == ("hangup", 2, grpc.StatusCode.OK)


@pytest.mark.parametrize("event", [b"", b"\xff\xff", pb.ClientEvent(confirm=pb.Confirm())])
async def test_event_that_cannot_be_read_is_an_error_event_and_the_call_goes_on(event: Any) -> None:
    async with phone_to() as phone:
        await phone.start()
        await phone.stream.write(event)
        error = (await phone.hear()).error
        assert (error.code, error.fatal) == ("invalid_request", False)
        await phone.say(turn=pb.Turn(turn_id="t1", text="Hello?"))
        assert (await phone.hear_turn())[1].finish_reason == "stop"


@pytest.mark.parametrize("event", [b"", b"\xff\xff", pb.ClientEvent(confirm=pb.Confirm())])
async def test_first_event_that_cannot_be_read_ends_the_stream(event: Any) -> None:
    async with phone_to() as phone:
        await phone.stream.write(event)
        error = await phone.refusal()
    assert (error.code(), trailer(error, "error-code")) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid_request")


async def test_event_out_of_order_is_an_error_event_and_the_call_goes_on() -> None:
    async with phone_to() as phone:
        await phone.say(turn=pb.Turn(turn_id="t1", text="Hello?"))
        early = (await phone.hear()).error
        await phone.start()
        await phone.say(start=pb.Start())
        second = (await phone.hear()).error
        await phone.say(turn=pb.Turn(turn_id="t1", text="Hello?"))
        assert (await phone.hear_turn())[1].finish_reason == "stop"
    assert [(error.code, error.fatal) for error in (early, second)] == [("wrong_state", False)] * 2


@pytest.mark.parametrize(
    ("start", "status", "code"),
    [
        (pb.Start(profile="other"), grpc.StatusCode.NOT_FOUND, "not_found"),
        (pb.Start(params=pb.Params(lora_adapter_id="x")), grpc.StatusCode.NOT_FOUND, "not_found"),
        (pb.Start(call_id="c1", resume_token="x"), grpc.StatusCode.NOT_FOUND, "not_found"),
        (pb.Start(params=pb.Params(top_p=2)), grpc.StatusCode.INVALID_ARGUMENT, "invalid_request"),
        (pb.Start(params=pb.Params(reasoning_effort="x")), grpc.StatusCode.INVALID_ARGUMENT, "invalid_request"),
        (pb.Start(system_prompt="x" * 3000), grpc.StatusCode.INVALID_ARGUMENT, "context_too_long"),
    ],
)
async def test_start_that_is_refused_ends_the_stream_with_its_status(
    start: pb.Start, status: grpc.StatusCode, code: str
) -> None:
    async with phone_to() as phone:
        await phone.say(start=start)
        error = await phone.refusal()
    assert (error.code(), trailer(error, "error-code")) == (status, code)


async def test_full_engine_ends_the_stream_and_says_when_to_come_back() -> None:
    async with gateway_to(max_calls=1) as gateway:
        first, second = Phone(gateway.channel), Phone(gateway.channel)
        await first.start()
        await second.say(start=pb.Start())
        error = await second.refusal()
    assert (error.code(), trailer(error, "error-code")) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "at_capacity")
    assert int(trailer(error, "retry-after-ms") or 0) > 0


async def test_id_of_an_open_call_cannot_be_used_for_another() -> None:
    async with gateway_to() as gateway:
        first, second = Phone(gateway.channel), Phone(gateway.channel)
        await first.start(call_id="c1")
        await second.say(start=pb.Start(call_id="c1"))
        errors = [await second.refusal(), await gateway.refusal(call_id="c1")]
        other = Phone(gateway.channel, tenant="other")
        assert (await other.start(call_id="c1")).call_id == "c1"
    for error in errors:
        assert (error.code(), trailer(error, "error-code")) == (grpc.StatusCode.FAILED_PRECONDITION, "wrong_state")


async def test_client_that_has_said_all_hears_the_answer_to_it() -> None:
    backend = GatedBackend()
    async with phone_to(backend) as phone:
        await phone.start()
        backend.hold(after_tokens=3)
        await phone.say(turn=pb.Turn(turn_id="t1", text="Hello?"))
        await backend.held()
        await phone.stream.done_writing()
        backend.release()
        events = await phone.hear_all()
        assert await phone.stream.code() is grpc.StatusCode.OK
    assert "".join(event.chunk.text for event in events) == "You said Hello?. That makes 1."
    assert events[-1].turn_end.finish_reason == "stop"


async def test_call_that_a_closing_server_cuts_is_told_to_try_elsewhere() -> None:
    async with edge_around() as edge, serving(edge) as gateway:
        phone = Phone(gateway.channel)
        await phone.start()
        await edge.conversations.close()
        error = await phone.refusal()
    assert (error.code(), trailer(error, "error-code")) == (grpc.StatusCode.UNAVAILABLE, "draining")
    assert int(trailer(error, "retry-after-ms") or 0) > 0


@pytest.mark.parametrize("way", ["half-close", "cancel"])
async def test_dropped_stream_keeps_its_call_to_be_resumed(way: str) -> None:
    async with edge_around() as edge, serving(edge) as gateway:
        phone = Phone(gateway.channel)
        ready = await phone.start(call_id="c1")
        await phone.say(turn=pb.Turn(turn_id="t1", text="Hello?"))
        await phone.hear_turn()
        if way == "cancel":
            phone.stream.cancel()
        else:
            await phone.stream.done_writing()
            assert await phone.hear_all() == []
            assert await phone.stream.code() is grpc.StatusCode.OK
        again = Phone(gateway.channel)
        resumed = await again.start(call_id="c1", resume_token=ready.resume_token, last_turn_id="t1", last_index=0)
        assert resumed.resume_token == ready.resume_token
        # What followed the first chunk comes again.
        assert (await again.hear_turn())[0] == "That makes 1."
        await again.say(turn=pb.Turn(turn_id="t2", text="Still there?"))
        assert (await again.hear_turn())[0] == "You said Still there?. That makes 2."
        await again.say(end=pb.End())
        await again.hear_all()
        assert len(edge.conversations) == 0


async def test_dropped_call_that_nobody_resumes_ends() -> None:
    backend = GatedBackend()
    async with edge_around(backend, config=any_ports(resume_s=0.05)) as edge, serving(edge) as gateway:
        engine = await edge.host.wait_ready()
        phone = Phone(gateway.channel)
        await phone.start()
        backend.hold(after_tokens=3)
        await phone.say(turn=pb.Turn(turn_id="t1", text="Hello?"))
        await backend.held()
        phone.stream.cancel()
        backend.release()
        async with asyncio.timeout(PATIENCE_S):
            while edge.host.lent:
                await asyncio.sleep(0.005)
        await idle(engine)
        assert (await engine.stats()).held_sequences == 0


async def test_tool_call_and_its_result_cross_the_wire() -> None:
    def reply(prompt: str) -> str:
        return (
            "It is 21."
            if "21" in prompt
            else 'One moment. <tool_call>{"name": "weather", "arguments": {"days": 2}}</tool_call>'
        )

    async with phone_to(FakeBackend(reply=reply)) as phone:
        tool = pb.Tool(name="weather", description="The weather.")
        tool.parameters.update({"type": "object", "properties": {"days": {"type": "integer"}}})
        await phone.start(tools=[tool])
        await phone.say(turn=pb.Turn(turn_id="t1", text="How warm is it?"))
        while not (event := await phone.hear()).HasField("tool_call"):
            pass
        call = event.tool_call
        assert (call.name, dict(call.arguments)) == ("weather", {"days": 2})
        result = pb.ToolResult(tool_call_id=call.tool_call_id)
        result.result.struct_value.update({"degrees": 21})
        await phone.say(tool_result=result)
        text, end = await phone.hear_turn()
    assert (text, end.finish_reason) == ("It is 21.", "stop")


async def test_tenant_is_the_default_one_where_none_is_named() -> None:
    async with edge_around() as edge, serving(edge) as gateway:
        phone = Phone(gateway.channel, tenant=None)
        await phone.start(call_id="c1")
        assert [tenant for tenant, _ in edge.conversations._calls] == ["default"]
        await phone.say(end=pb.End())
        await phone.hear_all()


async def test_event_that_is_too_large_ends_the_stream() -> None:
    async with phone_to(config=any_ports(max_request_bytes=2000)) as phone:
        await phone.start()
        await phone.say(partial=pb.Partial(text="x" * 3000))
        error = await phone.refusal()
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
