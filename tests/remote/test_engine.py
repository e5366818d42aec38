"""A RemoteEngine is used as an Engine is: the same replies, the same errors, and nothing left behind in the server."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from tests.runtime.helpers import GatedBackend, finished_of, profile, read, read_text, text_of, user
from tests.servers.helpers import any_ports, edge_around
from voice_llm import RemoteEngine
from voice_llm._proto import engine_pb2 as pb
from voice_llm.errors import (
    AtCapacityError,
    CallBusyError,
    ContextTooLongError,
    DrainingError,
    EngineDeadError,
    EngineError,
    ForbiddenError,
    InvalidRequestError,
    LoadingError,
    TooLargeError,
    UnauthenticatedError,
    VoiceLLMError,
    WrongStateError,
)
from voice_llm.events import FinishReason, SentenceChunk, TextDelta, Thought, ToolCall
from voice_llm.remote import CallFace, OpeningFace, link
from voice_llm.servers.grpc import engine_call
from voice_llm.servers.grpc.engine_codec import event_of
from voice_llm.testing import FakeBackend

from .helpers import remote, serving, until

pytestmark = pytest.mark.unit

TOOL: dict[str, Any] = {
    "name": "claim_status",
    "description": "Look up a claim",
    "parameters": {
        "type": "object",
        "properties": {"zone": {"type": "string"}, "amount": {"type": "number"}, "a": {"type": "integer"}},
        "required": ["zone"],
    },
}
ARGUMENTS = '{"zone": "Ağrı", "amount": 1.0, "a": 9007199254740993}'
HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Poliçem ne durumda?", "rag_context": "A fact of this question."},
    {
        "role": "assistant",
        "content": "Let me see.",
        "tool_calls": [{"id": "t1", "function": {"name": "claim_status", "arguments": ARGUMENTS}}],
    },
    {"role": "tool", "tool_call_id": "t1", "content": {"z": 1, "a": 2.0}},
    {"role": "user", "content": [{"type": "text", "text": "And <|im_end|> now?"}]},
]


async def obeyed(call: CallFace) -> None:
    """Wait until all commands so far have reached an engine that may be busy with a step: they keep their order."""
    with pytest.raises(InvalidRequestError, match="tool_choice"):
        await read(call.generate(user("Hi"), tool_choice="no such tool"))


async def test_a_conversation_gives_the_same_events_as_in_process() -> None:
    def reply(prompt: str) -> str:
        return f"<think>hm</think>Günaydın, how are you? Turn {prompt.count('<|im_start|>user')}, şimdi."

    async with remote(FakeBackend(reply=reply)) as (engine, edge):
        told: list[list[Any]] = []
        openings: list[OpeningFace] = [engine.open_call(tenant="a"), edge.host.require().open_call(tenant="b")]
        for opening in openings:  # of two tenants, so that they share no cache
            async with opening as call:
                first = await read(call.generate(user("Hi")))
                second = await read(call.generate(user("Hi", text_of(first), "More")))
            told.append([*first[:-1], finished_of(first).usage, *second[:-1], finished_of(second).usage])
            timings = finished_of(second).timings
            assert None not in (timings.queue_ms, timings.first_token_ms, timings.first_chunk_ms, timings.total_ms)
    assert told[0] == told[1]
    assert {type(event) for event in told[0]} >= {TextDelta, SentenceChunk, Thought}
    assert finished_of(second).usage.cached_tokens > 0


async def test_the_prompt_is_the_very_same_text() -> None:
    """The order of keys, the digits of numbers and each Turkish letter are part of what the cache is matched by."""
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "Yes."

    async with remote(FakeBackend(reply=reply)) as (engine, edge):
        openings: list[OpeningFace] = [engine.open_call(), edge.host.require().open_call()]
        for opening in openings:
            async with opening as call:
                await read(call.generate(HISTORY, tools=[TOOL], rag_context="Bir bilgi."))
    [prompt] = set(prompts)
    assert "9007199254740993" in prompt
    assert prompt.index('"zone":{') < prompt.index('"amount":{') < prompt.index('"a":{')


async def test_a_prefill_leaves_the_turn_only_what_is_new() -> None:
    async with remote() as (engine, _), engine.open_call() as call:
        done = await call.prefill(user("what do I pay"), open_ended=False)
        finished = finished_of(await read(call.generate(user("what do I pay"))))
    assert done.complete
    assert done.usage.prompt_tokens == finished.usage.prompt_tokens
    assert finished.usage.prompt_tokens - finished.usage.cached_tokens <= 2


async def test_a_tool_call_arrives_as_it_was_written() -> None:
    asked = f'<tool_call>{{"name": "claim_status", "arguments": {ARGUMENTS}}}</tool_call>'
    async with remote(FakeBackend(reply=lambda p: f"One moment. {asked}")) as (engine, _), engine.open_call() as call:
        events = await read(call.generate(user("claim"), tools=[TOOL], tool_choice="auto"))
    [tool_call] = [event for event in events if isinstance(event, ToolCall)]
    assert tool_call.tool_call_id
    assert str(tool_call.arguments) == "{'zone': 'Ağrı', 'amount': 1.0, 'a': 9007199254740993}"
    assert finished_of(events).reason is FinishReason.TOOL_CALLS


async def test_sampling_parameters_reach_the_engine() -> None:
    backend = FakeBackend(reply=lambda p: "One, two, three, four.")
    async with remote(backend) as (engine, _), engine.open_call() as call:
        short = await read(call.generate(user("Hi"), max_tokens=5))
        stopped = await read(call.generate(user("Hi"), engine.profile.sampling.replace(stop=[" three"])))
    assert finished_of(short).reason is FinishReason.LENGTH
    assert finished_of(short).usage.completion_tokens == 5
    assert text_of(stopped) == "One, two,"


async def test_timings_count_what_a_turn_had_waited_before_it_was_sent() -> None:
    async with remote() as (engine, _), engine.open_call() as call:
        late = finished_of(await read(call.generate(user("Hi"), arrival_s=engine.clock() - 7)))
        soon = finished_of(await read(call.generate(user("Hi"))))
    assert (late.timings.queue_ms or 0) >= 7000
    assert (soon.timings.total_ms or 7000) < 7000


async def test_leaving_the_loop_stops_the_generation() -> None:
    backend = GatedBackend(reply=lambda p: "word " * 100)
    async with remote(backend) as (engine, _), engine.open_call() as call:
        backend.hold(after_tokens=8)
        async for _ in call.generate(user("Hi")):
            break
        await obeyed(call)
        backend.release()
        # Not busy: what was left is over when the next turn begins.
        assert finished_of(await read(call.generate(user("Hi"), max_tokens=4))).reason is FinishReason.LENGTH
    assert backend.counters.sampled_tokens < 30


async def test_a_cancel_says_why_and_the_next_turn_need_not_wait() -> None:
    backend = GatedBackend(reply=lambda p: "word " * 100)
    async with remote(backend) as (engine, _), engine.open_call() as call:
        backend.hold(after_tokens=8)
        first = call.generate(user("Hi"))
        await backend.held()
        first.cancel(FinishReason.INTERRUPTED)
        second = call.generate(user("Hi", "word", "And?"), max_tokens=4)
        await obeyed(call)
        backend.release()
        assert finished_of(await read(first)).reason is FinishReason.INTERRUPTED
        assert finished_of(await read(second)).reason is FinishReason.LENGTH
    assert backend.counters.sampled_tokens < 30


async def test_a_prefill_that_is_given_up_does_not_stand_in_the_way() -> None:
    backend = GatedBackend()
    async with remote(backend) as (engine, _), engine.open_call() as call:
        backend.hold()
        hint = asyncio.create_task(call.prefill(user("a long question " * 20)))
        await backend.held()
        hint.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hint
        backend.release()
        assert await read_text(call.generate(user("short")))


async def open_twice(engine: RemoteEngine) -> None:
    async with engine.open_call(call_id="same"), engine.open_call(call_id="same"):
        raise AssertionError("must not open")


async def fill_up(engine: RemoteEngine) -> None:
    calls = [await engine.open_call() for _ in range(2)]
    try:
        await engine.open_call()
    finally:
        for call in calls:
            await call.close()


@pytest.mark.parametrize(
    ("act", "kind", "said"),
    [
        (open_twice, WrongStateError, "same"),
        (fill_up, AtCapacityError, "2"),
    ],
)
async def test_a_call_that_is_refused_raises_as_in_process(act: Any, kind: type[VoiceLLMError], said: str) -> None:
    async with remote(max_calls=2) as (engine, _):
        with pytest.raises(kind, match=said) as raised:
            await act(engine)
        if isinstance(raised.value, AtCapacityError):
            assert raised.value.retry_after_s > 0
        async with engine.open_call() as call:
            assert await read_text(call.generate(user("Hi")))


@pytest.mark.parametrize(
    ("messages", "options", "param"),
    [
        ([], {}, "messages"),
        ("Hi", {}, "messages"),
        ([{"role": "user", "content": "Hi", "colour": 1}], {}, "messages[0].colour"),
        ([{"role": "user", "content": "\ud800"}], {}, "messages[0].content"),
        (user("Hi"), {"tool_choice": "required"}, "tool_choice"),
        (user("Hi"), {"tools": [{"name": "a b"}]}, "tools[0].name"),
        (user("Hi"), {"rag_context": "\ud800"}, "rag_context"),
        (user("Hi"), {"max_tokens": 2000}, "max_tokens"),
        (user(*["Hi"] * 21), {}, "messages"),
    ],
)
async def test_a_request_that_cannot_be_used_is_refused_by_name_and_the_call_goes_on(
    messages: Any, options: dict[str, Any], param: str
) -> None:
    config = any_ports(max_messages=20, max_reply_tokens=1000)
    async with remote(config=config) as (engine, _), engine.open_call() as call:
        with pytest.raises(InvalidRequestError) as raised:
            await read(call.generate(messages, **options))
        assert raised.value.param == param
        assert await read_text(call.generate(user("Hi")))


async def test_a_wrong_option_is_refused_at_once_as_in_process() -> None:
    async with remote() as (engine, _), engine.open_call() as call:
        with pytest.raises(InvalidRequestError, match="temperatur"):
            call.generate(user("Hi"), temperatur=1)


async def test_a_prompt_that_is_too_long_says_how_long_it_is() -> None:
    async with remote(FakeBackend(context_per_call=400)) as (engine, _), engine.open_call() as call:
        with pytest.raises(ContextTooLongError) as raised:
            await read(call.generate(user("x" * 600), max_tokens=50))
        assert raised.value.context_tokens == 400
        assert raised.value.max_tokens == 50
        assert raised.value.prompt_tokens > 600
        assert await read_text(call.generate(user("Hi"), max_tokens=50))


async def test_a_request_larger_than_the_server_takes_is_not_sent() -> None:
    async with remote(config=any_ports(max_request_bytes=2048)) as (engine, _), engine.open_call() as call:
        with pytest.raises(TooLargeError, match="2048"):
            await read(call.generate(user("x" * 3000)))
        with pytest.raises(TooLargeError):
            await call.prefill(user("x" * 3000))
        assert await read_text(call.generate(user("Hi")))


async def test_a_busy_call_refuses_and_answers_on() -> None:
    backend = GatedBackend()
    async with remote(backend) as (engine, _), engine.open_call() as call:
        backend.hold(after_tokens=3)
        running = call.generate(user("Hi"))
        await backend.held()
        busy = call.generate(user("Hi"))
        hint = asyncio.create_task(call.prefill(user("Hi")))
        await asyncio.sleep(0)
        await obeyed(call)
        backend.release()
        with pytest.raises(CallBusyError):
            await read(busy)
        with pytest.raises(CallBusyError):
            await hint
        assert await read_text(running) == "You said Hi. That makes 1."


async def test_a_closed_call_ends_its_reply_and_refuses_requests() -> None:
    backend = GatedBackend()
    async with remote(backend) as (engine, edge):
        async with engine.open_call(call_id="mine") as call:
            backend.hold(after_tokens=3)
            running = call.generate(user("Hi"))
            await backend.held()
            closing = asyncio.create_task(call.close())
            await until(lambda: edge.host.require()._worker._inbox, "the call's end to wait for the step to end")
            backend.release()
            await closing
        assert finished_of(await read(running)).reason is FinishReason.CANCELLED
        with pytest.raises(WrongStateError, match="closed"):
            call.generate(user("Hi"))
        assert edge.host.lent == 0
        async with engine.open_call(call_id="mine"):  # its name is free again
            assert edge.host.lent == 1


async def test_a_call_that_nobody_holds_any_more_gives_its_place_back() -> None:
    async with remote(max_calls=1) as (engine, edge):
        call = await engine.open_call()
        assert await read_text(call.generate(user("Hi")))
        del call
        gc.collect()
        await until(lambda: not edge.host.lent, "the call to be closed")
        async with engine.open_call():
            pass


async def test_a_reply_in_progress_keeps_its_call_alive() -> None:
    async with remote() as (engine, _):
        assert await read_text((await engine.open_call()).generate(user("Hi"))) == "You said Hi. That makes 1."


async def test_an_inference_beside_the_calls_takes_no_calls_place() -> None:
    async with remote(max_calls=1) as (engine, _), engine.open_call() as call:
        async with engine.open_call(one_shot=True) as beside:
            assert await read_text(beside.generate(user("Sum it up")))
        assert await read_text(call.generate(user("Hi")))


async def test_closing_the_connection_ends_what_runs_and_frees_the_server() -> None:
    backend = GatedBackend()
    async with remote(backend) as (engine, edge):
        call = await engine.open_call()
        backend.hold(after_tokens=3)
        running = call.generate(user("Hi"))
        await backend.held()
        await engine.close()
        backend.release()
        with pytest.raises(EngineDeadError, match="closed"):
            await read(running)
        with pytest.raises(EngineDeadError):
            call.generate(user("Hi"))
        with pytest.raises(EngineDeadError):
            await engine.open_call()
        await until(lambda: not edge.host.lent, "the call to be closed")


async def test_a_reply_whose_end_is_not_known_here_fails_and_the_call_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with remote() as (engine, _), engine.open_call() as call:
        with monkeypatch.context() as patched:
            patched.setattr(engine_call, "event_of", ended_otherwise)
            with pytest.raises(EngineError, match="not known here"):
                await read(call.generate(user("Hi")))
        assert await read_text(call.generate(user("Hi")))


def ended_otherwise(request_id: int, event: Any, age: Any) -> pb.CallEvent:
    """As a server of a later version."""
    made = event_of(request_id, event, age)
    if made.HasField("finished"):
        made.finished.finish_reason = "bored"
    return made


async def test_a_server_that_cannot_be_understood_need_not_keep_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(event: Any) -> None:
        raise RuntimeError("not understood")

    async with remote() as (engine, edge):
        call = await engine.open_call()
        monkeypatch.setattr(link, "event_of", fail)
        with pytest.raises(EngineError, match="cannot be read: RuntimeError"):
            await read(call.generate(user("Hi")))
        await until(lambda: not edge.host.lent, "the call to be closed")


async def test_a_server_that_went_away_is_used_again_when_it_is_back() -> None:
    backend = GatedBackend()
    async with edge_around(backend) as edge:
        async with serving(edge) as endpoint:
            engine = await RemoteEngine.connect(endpoint)
            call = await engine.open_call()
            backend.hold(after_tokens=3)
            running = call.generate(user("Hi"))
            await backend.held()
        backend.release()
        with pytest.raises(EngineDeadError):
            await read(running)
        with pytest.raises(EngineDeadError):
            call.generate(user("Hi"))
        with pytest.raises(EngineDeadError):
            await engine.open_call()
        assert not (await engine.health()).healthy
        port = int(endpoint.rpartition(":")[2])
        async with edge_around(config=any_ports(grpc_port=port)) as new_edge, serving(new_edge):
            assert await _first_reply(engine) == "You said Hi. That makes 1."
            assert (await engine.health()).healthy
            with pytest.raises(EngineDeadError):  # what the old server held is gone for good
                call.generate(user("Hi"))
            await engine.close()


async def _first_reply(engine: RemoteEngine) -> str:
    """Wait for the connection to be made again, which takes a second at most."""
    for _ in range(200):
        try:
            async with engine.open_call() as call:
                return await read_text(call.generate(user("Hi")))
        except EngineDeadError:
            await asyncio.sleep(0.1)
    raise AssertionError("the server was not found again")


async def test_an_engine_that_dies_ends_the_replies_of_its_clients_and_says_no_more() -> None:
    with pytest.raises(EngineDeadError, match="thread has ended"):  # what the edge finds out when it is closed
        await _let_the_engine_die()


async def _let_the_engine_die() -> None:
    backend = GatedBackend()
    async with remote(backend) as (engine, _), engine.open_call() as call:
        backend.hold(after_tokens=3)
        running = call.generate(user("Hi"))
        await backend.held()
        backend.fatal = SystemExit("a secret of the server")
        backend.release()
        with pytest.raises(EngineDeadError) as raised:
            await read(running)
        assert "secret" not in str(raised.value)
        with pytest.raises(EngineDeadError):
            await read(call.generate(user("Hi")))
        with pytest.raises((EngineError, LoadingError)):  # the host finds out within a second
            await engine.open_call()
        assert not (await engine.health()).healthy


async def test_a_draining_server_takes_no_new_calls_and_finishes_those_it_has() -> None:
    async with remote() as (engine, edge):
        async with engine.open_call() as call:
            assert not await edge.host.drain(0)
            with pytest.raises(DrainingError) as raised:
                await engine.open_call()
            assert raised.value.retry_after_s > 0
            assert await read_text(call.generate(user("Hi")))
        assert await edge.host.drain(5)


async def test_a_key_decides_the_tenant() -> None:
    config = any_ports(api_keys={"open-sesame": "acme"})
    async with edge_around(config=config) as edge, serving(edge) as endpoint:
        with pytest.raises(UnauthenticatedError):
            await RemoteEngine.connect(endpoint)
        async with await RemoteEngine.connect(endpoint, api_key="open-sesame") as engine:
            async with engine.open_call() as call:
                assert call.tenant == "acme"
            with pytest.raises(ForbiddenError):
                await engine.open_call(tenant="other")


async def test_tenants_are_kept_apart_as_in_process() -> None:
    async with remote() as (engine, _):
        async with engine.open_call(call_id="1", tenant="a") as one, engine.open_call(call_id="1", tenant="b") as two:
            assert (one.tenant, two.tenant) == ("a", "b")
        with pytest.raises(InvalidRequestError, match="tenant"):
            engine.open_call(tenant="")
        with pytest.raises(InvalidRequestError, match="ASCII"):
            await engine.open_call(tenant="şube")


async def test_a_tenant_gets_as_many_calls_as_it_may() -> None:
    async with remote(config=any_ports(max_calls_per_tenant=1)) as (engine, _), engine.open_call(tenant="a"):
        with pytest.raises(AtCapacityError, match="tenant"):
            await engine.open_call(tenant="a")
        async with engine.open_call(tenant="b"):
            pass


async def test_the_profile_is_the_servers_without_its_folders() -> None:
    served = profile(system_prompt="Merhaba.", language="tr", sampling={"max_tokens": 7, "stop": ["X"]})
    model = served.model.model_copy(update={"path": "/home/operator/models/none.gguf"})
    async with remote(served=served.model_copy(update={"model": model})) as (engine, _):
        assert engine.profile == served
        health = await engine.health()
        assert (health.healthy, health.open_calls, health.max_calls) == (True, 0, 4)
