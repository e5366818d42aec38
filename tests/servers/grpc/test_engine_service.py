"""EngineService as a client in any language sees it: from the generated stub, without RemoteEngine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.runtime.helpers import GatedBackend, profile
from tests.servers.helpers import any_ports, edge_around
from voice_llm._proto import engine_pb2 as pb
from voice_llm._proto import engine_pb2_grpc as pb_grpc
from voice_llm.errors import InvalidRequestError
from voice_llm.events import FinishReason, Timings, Usage
from voice_llm.observer import Observer
from voice_llm.runtime import Call
from voice_llm.servers.edge import Edge
from voice_llm.servers.grpc import GrpcServer, engine_service
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

HI = pb.Prompt(messages='[{"role": "user", "content": "Hi"}]')
DEEP_TOOLS = '[{"name": "f", "parameters": ' + '{"not": ' * 900 + "{}" + "}" * 900 + "}]"
OPEN = pb.CallCommand(open=pb.Open())


class Told(Observer):
    """Remembers what it is told of calls and requests."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.total_ms: list[float] = []

    def call_refused(self, code: str) -> None:
        self.refused.append(code)

    def turn_ended(self, reason: FinishReason, usage: Usage, timings: Timings) -> None:
        self.total_ms.append(timings.total_ms or 0.0)

    def request_ended(self, interface: str, code: str, took_s: float) -> None:
        assert took_s >= 0
        self.requests.append((interface, code))


@asynccontextmanager
async def served(backend: FakeBackend | None = None, **options: Any) -> AsyncIterator[tuple[Edge, grpc.aio.Channel]]:
    async with edge_around(backend, **options) as edge:
        server = GrpcServer(edge)
        port = await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield edge, channel
        finally:
            await server.stop()


def hold(channel: grpc.aio.Channel, *commands: pb.CallCommand, **options: Any) -> Any:
    stub = pb_grpc.EngineServiceStub(channel)
    return stub.HoldCall(iter(commands), **options) if commands else stub.HoldCall(**options)


def generate(request_id: int, **fields: Any) -> pb.CallCommand:
    return pb.CallCommand(generate=pb.Generate(request_id=request_id, **{"prompt": HI, **fields}))


def prefill(request_id: int, **fields: Any) -> pb.CallCommand:
    return pb.CallCommand(prefill=pb.Prefill(request_id=request_id, **{"prompt": HI, **fields}))


async def one(call: Any) -> pb.CallEvent:
    event: pb.CallEvent = await call.read()
    return event


async def until_end_of(call: Any, request_id: int) -> list[pb.CallEvent]:
    events: list[pb.CallEvent] = []
    while not events or events[-1].WhichOneof("event") not in ("finished", "prefilled", "error"):
        events.append(await one(call))
        assert events[-1].request_id == request_id
    return events


@asynccontextmanager
async def held(channel: grpc.aio.Channel, **opening: Any) -> AsyncIterator[Any]:
    """A call that is open; at the end it is closed, and has ended well."""
    call = hold(channel)
    await call.write(pb.CallCommand(open=pb.Open(**opening)))
    assert (await one(call)).HasField("opened")
    yield call
    await call.done_writing()
    await read_to_the_end(call)
    assert await call.code() is grpc.StatusCode.OK


async def status_of(call: Any) -> tuple[str, str | None]:
    """Return the status of an RPC that fails, and our code beside it."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await read_to_the_end(call)
    codes = [str(value) for name, value in raised.value.trailing_metadata() or () if name == "error-code"]
    return raised.value.code().name, codes[0] if codes else None


async def read_to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_it_says_what_runs() -> None:
    async with served(served=profile(system_prompt="Merhaba.")) as (_, channel):
        stub = pb_grpc.EngineServiceStub(channel)
        found = await stub.Describe(pb.DescribeRequest())
    described = json.loads(found.profile)
    assert (described["name"], described["system_prompt"]) == ("test", "Merhaba.")
    assert (found.healthy, found.open_calls, found.max_calls) == (True, 0, 4)


async def test_requests_of_one_call_are_told_apart_by_their_ids() -> None:
    async with served() as (_, channel), held(channel) as call:
        await call.write(prefill(7, open_ended=True))
        assert [e.WhichOneof("event") for e in await until_end_of(call, 7)] == ["prefilled"]
        await call.write(generate(9))
        events = await until_end_of(call, 9)
        assert "".join(e.text_delta for e in events) == "You said Hi. That makes 1."
        assert "".join(e.sentence_chunk.text for e in events) == "You said Hi. That makes 1."
        assert events[-1].finished.finish_reason == "stop"
        assert events[-1].finished.usage.cached_tokens > 0
        assert events[-1].finished.timings.total_ms > 0


@pytest.mark.parametrize(
    ("command", "code", "param"),
    [
        (generate(0), "invalid_request", "request_id"),
        (generate(1, prompt=pb.Prompt(messages="[")), "invalid_request", "messages"),
        (generate(1, prompt=pb.Prompt(messages="[" * 100_000)), "invalid_request", "messages"),
        (generate(1, prompt=pb.Prompt(messages=HI.messages, tools="{}")), "invalid_request", "tools"),
        (generate(1, params="[]"), "invalid_request", "params"),
        (generate(1, params='{"colour": 1}'), "invalid_request", "colour"),
        (generate(1, params='{"max_tokens": 10000}'), "invalid_request", "max_tokens"),
        (generate(1, params='{"\\ud800": 1}'), "invalid_request", "params"),
        (generate(1, params='{"stop": ["\\ud800"]}'), "invalid_request", "params"),
        (generate(1, params='{"json_schema": {"minimum": NaN}}'), "invalid_request", "params"),
        (generate(1, prompt=pb.Prompt(messages=HI.messages, tools=DEEP_TOOLS)), "invalid_request", "tools"),
        (generate(1, prompt=pb.Prompt(messages=f"[{'{},' * 2000}{{}}]")), "invalid_request", "messages"),
        (generate(1, tool_choice='"some"'), "invalid_request", "tool_choice"),
        (generate(1, age_s=float("nan")), "invalid_request", "age_s"),
        (prefill(1, age_s=-1.0), "invalid_request", "age_s"),
        (pb.CallCommand(cancel=pb.Cancel(request_id=1, reason="stop")), "invalid_request", "reason"),
        (pb.CallCommand(), "invalid_request", "command"),
        (OPEN, "wrong_state", ""),
    ],
)
async def test_a_command_that_cannot_be_used_is_answered_and_the_call_goes_on(
    command: pb.CallCommand, code: str, param: str
) -> None:
    async with served() as (_, channel), held(channel) as call:
        await call.write(command)
        failed = await one(call)
        assert (failed.error.code, failed.error.param) == (code, param)
        await call.write(generate(2))
        assert (await until_end_of(call, 2))[-1].finished.finish_reason == "stop"


async def test_a_request_id_in_use_is_refused() -> None:
    backend = GatedBackend()
    async with served(backend) as (_, channel), held(channel) as call:
        backend.hold()
        await call.write(generate(1))
        await backend.held()
        await call.write(generate(1))
        assert (await one(call)).error.param == "request_id"
        backend.release()
        assert (await until_end_of(call, 1))[-1].finished.finish_reason == "stop"


@pytest.mark.parametrize("commands", [[generate(1)], [pb.CallCommand()], []], ids=["generate", "nothing", "no command"])
async def test_a_stream_that_does_not_begin_with_open_is_refused(commands: Sequence[pb.CallCommand]) -> None:
    observer = Told()
    async with served(observer=observer) as (_, channel):
        call = hold(channel)
        for command in commands:
            await call.write(command)
        await call.done_writing()
        assert await status_of(call) == ("INVALID_ARGUMENT", "invalid_request")
    assert observer.requests == [("grpc", "invalid_request")]


async def test_bytes_that_are_no_command_are_refused_by_name() -> None:
    async with served() as (_, channel):
        raw: Any = channel.stream_stream(
            "/voice_llm.v1.EngineService/HoldCall", response_deserializer=pb.CallEvent.FromString
        )
        call = raw()
        await call.write(b"\xff\xff")
        assert await status_of(call) == ("INVALID_ARGUMENT", "invalid_request")


async def test_a_call_without_room_is_refused_and_counted() -> None:
    observer = Told()
    async with served(observer=observer, max_calls=1) as (_, channel), held(channel):
        assert await status_of(hold(channel, OPEN)) == ("RESOURCE_EXHAUSTED", "at_capacity")
    assert observer.refused == ["at_capacity"]
    assert observer.requests == [("grpc", "at_capacity"), ("grpc", "ok")]


async def test_a_call_that_is_refused_for_another_reason_is_not_counted_as_without_room() -> None:
    observer = Told()
    async with served(observer=observer) as (_, channel), held(channel, call_id="c1"):
        twice = hold(channel, pb.CallCommand(open=pb.Open(call_id="c1")))
        assert await status_of(twice) == ("FAILED_PRECONDITION", "wrong_state")
    assert observer.refused == []


@pytest.mark.parametrize("call_id", ["a\nb", "\x1b[31m", "x" * 129])
async def test_a_call_id_that_cannot_be_printed_is_refused(call_id: str) -> None:
    async with served() as (_, channel):
        named = hold(channel, pb.CallCommand(open=pb.Open(call_id=call_id)))
        assert await status_of(named) == ("INVALID_ARGUMENT", "invalid_request")


async def test_a_stream_that_opens_no_call_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_service, "_OPEN_WITHIN_S", 0.05)
    async with served() as (_, channel):
        silent = hold(channel)
        assert await status_of(silent) == ("INVALID_ARGUMENT", "invalid_request")


async def test_an_error_that_cannot_be_written_is_internal_and_the_call_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise InvalidRequestError("\ud800")

    async with served() as (_, channel), held(channel) as call:
        with monkeypatch.context() as patched:
            patched.setattr(Call, "generate", refuse)
            await call.write(generate(1))
            assert (await one(call)).error.code == "internal"
        await call.write(generate(2))
        assert (await until_end_of(call, 2))[-1].finished.finish_reason == "stop"


async def test_an_age_is_told_in_timings_but_a_second_of_it_at_most_is_believed() -> None:
    observer = Told()
    async with served(observer=observer) as (_, channel), held(channel) as call:
        await call.write(generate(1, age_s=0.5))
        young = (await until_end_of(call, 1))[-1].finished.timings
        await call.write(generate(2, age_s=60.0))
        old = (await until_end_of(call, 2))[-1].finished.timings
    assert young.total_ms >= 500
    assert min(old.queue_ms, old.first_token_ms, old.first_chunk_ms, old.total_ms) >= 60_000
    assert young.total_ms == pytest.approx(observer.total_ms[0])
    assert old.total_ms == pytest.approx(observer.total_ms[1] + 59_000)


async def test_another_tenant_than_the_keys_is_refused() -> None:
    config = any_ports(api_keys={"open-sesame": "acme"})
    bearer = ("authorization", "Bearer open-sesame")
    async with served(config=config) as (_, channel):
        assert await status_of(hold(channel, OPEN)) == ("UNAUTHENTICATED", "unauthenticated")
        other = hold(channel, OPEN, metadata=(bearer, ("x-tenant-id", "other")))
        assert await status_of(other) == ("PERMISSION_DENIED", "forbidden")


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_a_client_that_goes_away_frees_its_call_at_the_next_step(how: str) -> None:
    backend = GatedBackend(reply=lambda p: "word " * 100)
    async with served(backend) as (edge, channel):
        engine = edge.host.require()
        call = hold(channel, timeout=5 if how == "deadline" else None)
        await call.write(OPEN)
        assert (await one(call)).HasField("opened")
        backend.hold(after_tokens=8)
        await call.write(generate(1))
        await backend.held()
        if how == "cancel":
            call.cancel()
        async with asyncio.timeout(20):
            while not engine._worker._inbox:  # the call's end, which waits for the step to end
                await asyncio.sleep(0.005)
            backend.release()
            while edge.host.lent:
                await asyncio.sleep(0.005)
        assert engine.health().open_calls == 0
    assert backend.counters.sampled_tokens < 20


async def test_a_client_that_does_not_read_holds_up_nobody() -> None:
    """Its events pile up to a bound, and the calls beside it are answered."""
    backend = FakeBackend(reply=lambda p: "wörd " * 300 if "flood" in p else "Fine.", context_per_call=4096)
    flood = pb.Prompt(messages='[{"role": "user", "content": "flood"}]')
    async with served(backend) as (edge, channel):
        stalled = hold(channel)
        await stalled.write(OPEN)
        for number in range(1, 40):
            await stalled.write(generate(number, prompt=flood, params='{"max_tokens": 1500}'))
        async with held(channel) as call:
            for number in range(1, 6):
                await call.write(generate(number))
                assert "".join(e.text_delta for e in await until_end_of(call, number)) == "Fine."
        stalled.cancel()
        async with asyncio.timeout(20):
            while edge.host.lent:
                await asyncio.sleep(0.005)
