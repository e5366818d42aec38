"""Soft calls: requests that share a call id, which nobody ends."""

from __future__ import annotations

import pytest

from tests.runtime.helpers import GatedBackend, running
from voice_llm.errors import AtCapacityError
from voice_llm.events import Finished
from voice_llm.runtime import Call
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit


async def ask(call: Call, text: str = "Hello?") -> Finished:
    stream = call.generate([{"role": "user", "content": text}])
    async for _ in stream:
        pass
    assert stream.finished is not None
    return stream.finished


async def test_at_rest_they_take_no_calls_place_and_keep_their_cache() -> None:
    async with running(FakeBackend(sequences=2)) as engine:
        soft = [await engine.open_call(soft=True) for _ in range(4)]
        first = [await ask(call, f"I am caller {index}.") for index, call in enumerate(soft)]
        assert engine.health().open_calls == 0
        async with engine.open_call() as a, engine.open_call() as b:
            assert engine.health().open_calls == 2
            await ask(a)
            await ask(b)
        again = [await ask(call, f"I am caller {index}.") for index, call in enumerate(soft)]
        for before, after in zip(first, again, strict=True):
            assert after.usage.prompt_tokens - after.usage.cached_tokens == 2, before
        for call in soft:
            await call.close()


async def test_a_turn_of_one_counts_as_a_call_while_it_runs() -> None:
    backend = GatedBackend(sequences=1)
    async with running(backend) as engine, engine.open_call(soft=True) as soft:
        backend.hold()
        reply = soft.generate([{"role": "user", "content": "Hello?"}])
        await backend.held()
        assert engine.health().open_calls == 1
        backend.release()
        async for _ in reply:
            pass
        assert engine.health().open_calls == 0


async def test_its_turn_is_refused_where_all_places_are_taken() -> None:
    async with running(FakeBackend(sequences=1)) as engine, engine.open_call(soft=True) as soft:
        async with engine.open_call():
            with pytest.raises(AtCapacityError):
                await ask(soft)
        assert (await ask(soft)).usage.completion_tokens > 0


async def test_they_are_parked_before_calls_that_are_held() -> None:
    backend = FakeBackend(sequences=2)
    async with (
        running(backend, max_calls=3) as engine,
        engine.open_call() as held,
        engine.open_call(soft=True) as soft,
        engine.open_call() as new,
    ):
        await ask(held)
        await ask(soft)
        await ask(new)
        again = await ask(held)
        assert again.usage.prompt_tokens - again.usage.cached_tokens == 2
        assert (await engine.stats()).batcher.parked == 1
        assert soft._live.sequence is None


async def test_their_number_is_bounded() -> None:
    async with running(FakeBackend(sequences=1)) as engine:
        calls = [await engine.open_call(soft=True) for _ in range(8)]
        with pytest.raises(AtCapacityError):
            await engine.open_call(soft=True)
        for call in calls:
            await call.close()
