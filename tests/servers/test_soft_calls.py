"""SoftCalls: requests that share a call id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.runtime.helpers import profile
from voice_llm.errors import AtCapacityError, CallBusyError, NotFoundError
from voice_llm.events import Usage
from voice_llm.prompt import Message
from voice_llm.runtime import Call, Engine
from voice_llm.servers.host import EngineHost
from voice_llm.servers.identity import Identity
from voice_llm.servers.soft_calls import ChatHistory, SoftCalls
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

ACME = Identity("acme")
OTHER = Identity("other")


@asynccontextmanager
async def keeping(
    backend: FakeBackend | None = None, *, idle_s: float = 60.0, max_per_tenant: int | None = None
) -> AsyncIterator[tuple[SoftCalls, Engine]]:
    async def load() -> Engine:
        return await Engine.start(backend or FakeBackend(), profile())

    host = EngineHost(load, profile_name="test", max_per_tenant=max_per_tenant)
    host.start()
    engine = await host.wait_ready()
    calls = SoftCalls(host, idle_s=idle_s)
    try:
        yield calls, engine
        await calls.close()
        await engine.check_integrity()
        assert (await engine.stats()).held_sequences == 0
        assert host.lent == 0
    finally:
        await calls.close()
        await host.close()


def chat(*said: str, rag_context: str | None = None) -> ChatHistory:
    """What caller and assistant said, in turn."""
    messages = (Message("assistant" if i % 2 else "user", text) for i, text in enumerate(said))
    return ChatHistory(tuple(messages), rag_context)


async def ask(calls: SoftCalls, identity: Identity, call_id: str | None, text: str = "Hello?") -> Usage:
    async with calls.use(identity, call_id) as (_, call):
        return await answer(call, chat(text))


async def go_on(calls: SoftCalls, identity: Identity, told: ChatHistory) -> Usage:
    async with calls.use(identity, None, told) as (_, call):
        return await answer(call, told)


async def answer(call: Call, told: ChatHistory) -> Usage:
    stream = call.generate(told.messages, rag_context=told.rag_context)
    async for _ in stream:
        pass
    assert stream.finished is not None
    return stream.finished.usage


async def test_the_second_request_of_a_call_computes_only_what_is_new() -> None:
    async with keeping() as (calls, _):
        first = await ask(calls, ACME, "c1")
        again = await ask(calls, ACME, "c1")
        assert first.cached_tokens == 0
        assert again.prompt_tokens - again.cached_tokens == 2
        assert len(calls) == 1


async def test_the_same_id_of_another_tenant_is_another_call() -> None:
    async with keeping() as (calls, _):
        await ask(calls, ACME, "c1")
        assert (await ask(calls, OTHER, "c1")).cached_tokens == 0
        assert len(calls) == 2


async def test_requests_without_an_id_leave_nothing_behind() -> None:
    async with keeping() as (calls, engine):
        await ask(calls, ACME, None)
        assert len(calls) == 0
        assert (await engine.stats()).held_sequences == 0


async def test_request_without_an_id_goes_on_with_what_its_history_says() -> None:
    async with keeping() as (calls, _):
        await go_on(calls, ACME, chat("Hello?"))
        await go_on(calls, ACME, chat("Good morning?"))
        first = await go_on(calls, ACME, chat("Hello?", "You said Hello?. That makes 1.", "And fire?"))
        other = await go_on(calls, ACME, chat("Good morning?", "You said Good morning?. That makes 1.", "And theft?"))
        for usage in (first, other):
            new = len("<|im_start|>user\nAnd theft?<|im_end|>\n<|im_start|>assistant\n")
            assert usage.prompt_tokens - usage.cached_tokens <= new
        assert len(calls) == 2


async def test_history_of_another_tenant_or_with_other_facts_is_not_gone_on_with() -> None:
    longer = ("Hello?", "You said Hello?. That makes 1.", "And fire?")
    async with keeping() as (calls, _):
        await go_on(calls, ACME, chat("Hello?", rag_context="The deductible is 150 euros."))
        assert (await go_on(calls, OTHER, chat(*longer, rag_context="The deductible is 150 euros."))).cached_tokens == 0
        assert len(calls) == 2
        await go_on(calls, ACME, chat(*longer))
        await go_on(calls, ACME, chat("Goodbye?", *longer[1:]))
        assert len(calls) == 4


async def test_two_requests_at_once_with_the_same_history_both_have_their_answer() -> None:
    async with keeping() as (calls, _):
        await go_on(calls, ACME, chat("Hello?"))
        both = [go_on(calls, ACME, chat("Hello?", "Hi.", "And fire?")) for _ in range(2)]
        assert len(await asyncio.gather(*both)) == 2
        assert len(calls) == 2


async def test_call_with_an_id_is_not_lent_to_a_request_without() -> None:
    async with keeping() as (calls, _):
        await ask(calls, ACME, "c1")
        async with calls.use(ACME, "c1"):
            await go_on(calls, ACME, chat("Hello?"))
        assert len(calls) == 2


async def test_a_second_request_at_once_is_busy() -> None:
    async with keeping() as (calls, _):
        async with calls.use(ACME, "c1"):
            with pytest.raises(CallBusyError):
                await ask(calls, ACME, "c1")
        await ask(calls, ACME, "c1")


async def test_two_first_requests_at_once_open_one_call() -> None:
    async with keeping() as (calls, _):
        done = await asyncio.gather(ask(calls, ACME, "c1"), ask(calls, ACME, "c1"), return_exceptions=True)
        assert [type(d) for d in done].count(CallBusyError) == 1
        assert len(calls) == 1


async def test_a_quiet_call_is_dropped_after_a_while() -> None:
    async with keeping(idle_s=0.02) as (calls, engine):
        await ask(calls, ACME, "c1")
        async with asyncio.timeout(20):
            while len(calls):
                await asyncio.sleep(0.005)
        assert (await engine.stats()).held_sequences == 0
        assert (await ask(calls, ACME, "c1")).prompt_tokens > 0


async def test_the_quietest_call_makes_room_where_too_many_are_kept() -> None:
    async with keeping(FakeBackend(sequences=1)) as (calls, _):
        for index in range(9):
            await ask(calls, ACME, f"c{index}")
        assert len(calls) == 8
        with pytest.raises(NotFoundError):
            await calls.drop(ACME, "c0")
        await calls.drop(ACME, "c8")


async def test_a_tenant_that_needs_room_drops_a_call_of_its_own_first() -> None:
    async with keeping(FakeBackend(sequences=1)) as (calls, _):
        await ask(calls, OTHER, "theirs")
        for index in range(9):
            await ask(calls, ACME, f"c{index}")
        assert (await ask(calls, OTHER, "theirs")).cached_tokens > 0


async def test_calls_at_rest_make_room_for_a_request_without_an_id() -> None:
    async with keeping(FakeBackend(sequences=1)) as (calls, _):
        for index in range(8):
            await ask(calls, ACME, f"c{index}")
        assert (await ask(calls, OTHER, None)).prompt_tokens > 0
        assert len(calls) == 7


async def test_a_tenant_cannot_take_more_than_its_share() -> None:
    async with keeping(max_per_tenant=1) as (calls, _):
        async with calls.use(ACME, "c1"):
            with pytest.raises(AtCapacityError):
                await ask(calls, ACME, "c2")
            assert (await ask(calls, OTHER, "c2")).prompt_tokens > 0
        await ask(calls, ACME, "c2")


async def test_dropping_frees_the_sequence_and_knows_only_ones_own() -> None:
    async with keeping() as (calls, engine):
        await ask(calls, ACME, "c1")
        with pytest.raises(NotFoundError):
            await calls.drop(OTHER, "c1")
        await calls.drop(ACME, "c1")
        assert (await engine.stats()).held_sequences == 0


async def test_a_call_that_is_dropped_while_it_answers_ends_and_leaves_nothing() -> None:
    async with keeping() as (calls, engine):
        async with calls.use(ACME, "c1") as (_, call):
            stream = call.generate([{"role": "user", "content": "Hello?"}])
            await calls.drop(ACME, "c1")
            async for _ in stream:
                pass
        assert len(calls) == 0
        assert (await engine.stats()).held_sequences == 0
