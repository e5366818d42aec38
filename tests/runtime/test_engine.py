"""Engine: start, capacity, health, and what everyone hears when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from voice_llm.errors import AtCapacityError, BackendError, EngineDeadError, EngineError, WrongStateError
from voice_llm.runtime import Call, Engine
from voice_llm.testing import FakeBackend

from .helpers import GatedBackend, finished_of, idle, profile, prompts_made, read, read_text, running, text_of, user

pytestmark = pytest.mark.unit

LONG_REPLY = "bu uzun bir cevap " * 50


async def open_calls(engine: Engine) -> int:
    await idle(engine)
    return engine.health().open_calls


class TestStart:
    async def test_warms_up_and_leaves_every_sequence_to_the_calls(self) -> None:
        backend = FakeBackend()
        async with running(backend) as engine:
            assert backend.counters.batches > 2
            assert await open_calls(engine) == 0
            assert [backend.seq_length(i) for i in range(4)] == [0] * 4

    async def test_profiles_system_prompt_is_computed_once_for_all_tenants(self) -> None:
        system = "Kibar bir asistansın. " * 10
        async with running(FakeBackend(), system_prompt=system) as engine:
            for tenant in ("acme", "rival"):
                async with engine.open_call(tenant=tenant) as call:
                    messages = [{"role": "system", "content": system}, *user(f"ben {tenant}")]
                    usage = finished_of(await read(call.generate(messages))).usage
                    assert len(system.encode()) <= usage.cached_tokens < usage.prompt_tokens

    async def test_that_fails_closes_the_backend(self) -> None:
        backend = FakeBackend()
        backend.fail_next(BackendError("no compute buffer"))
        with pytest.raises(BackendError, match="no compute buffer"):
            await Engine.start(backend, profile())
        assert backend.closed

    async def test_with_a_template_that_does_not_compile_closes_the_backend(self) -> None:
        backend = FakeBackend()
        with pytest.raises(Exception, match="template"):
            await Engine.start(backend, profile(chat_template="{% for %}"))
        assert backend.closed


class TestOpenCall:
    async def test_fifty_at_once_fill_every_place_and_the_rest_are_refused(self) -> None:
        async with running(FakeBackend(sequences=8)) as engine:

            async def attempt() -> Call:
                return await engine.open_call()

            results = await asyncio.gather(*(attempt() for _ in range(50)), return_exceptions=True)
            calls = [r for r in results if isinstance(r, Call)]
            assert len(calls) == await open_calls(engine) == 8
            assert sum(isinstance(r, AtCapacityError) for r in results) == 42
            for call in calls:
                await call.close()
            assert await open_calls(engine) == 0
            async with engine.open_call():
                assert await open_calls(engine) == 1

    @pytest.mark.parametrize("hops", [0, 1, 2, 3])
    async def test_cancelled_while_opening_leaks_no_call(self, hops: int) -> None:
        backend = GatedBackend(reply=lambda _: LONG_REPLY)
        async with running(backend) as engine, engine.open_call() as busy:
            backend.hold()
            stream = busy.generate(user("x"))
            await backend.held()

            async def attempt() -> Call:
                return await engine.open_call()

            opening = asyncio.create_task(attempt())
            for _ in range(hops):
                await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            backend.release()
            stream.cancel()
            assert await open_calls(engine) == 1

    async def test_cancelled_after_the_engine_has_answered_leaks_no_call(self) -> None:
        async with running() as engine:
            opened = asyncio.Event()

            async def attempt() -> Call:
                opened.set()
                return await engine.open_call()

            for _ in range(50):
                opened.clear()
                opening = asyncio.create_task(attempt())
                await opened.wait()
                await engine.stats()  # by now the engine has opened it, too
                opening.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await (await opening).close()
            assert await open_calls(engine) == 0

    async def test_refusal_of_a_cancelled_opening_is_nobodys_unhandled_error(self) -> None:
        unhandled: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        backend = GatedBackend(sequences=1)
        async with running(backend) as engine, engine.open_call() as busy:
            backend.hold()
            stream = busy.generate(user("x"))
            await backend.held()
            opening = asyncio.ensure_future(engine.open_call()._open())
            await asyncio.sleep(0)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            backend.release()
            await read(stream)
            assert await open_calls(engine) == 1
        assert unhandled == []

    async def test_same_id_twice_is_refused_within_a_tenant_only(self) -> None:
        async with running() as engine, engine.open_call(call_id="a", tenant="acme") as call:
            assert (call.call_id, call.tenant) == ("a", "acme")
            with pytest.raises(WrongStateError, match="already open"):
                await engine.open_call(call_id="a", tenant="acme")
            async with engine.open_call(call_id="a", tenant="rival"):
                assert await open_calls(engine) == 2

    async def test_calls_beyond_the_sequences_are_parked_and_keep_their_cache(self) -> None:
        async with running(FakeBackend(sequences=2), max_calls=6) as engine:
            calls = [await engine.open_call() for _ in range(6)]
            texts = await asyncio.gather(*(read_text(c.generate(user(f"ben {i}"))) for i, c in enumerate(calls)))
            assert texts == [f"You said ben {i}. That makes 1." for i in range(6)]
            for i, call in enumerate(calls):
                events = await read(call.generate(user(f"ben {i}", texts[i], "devam")))
                assert text_of(events) == "You said devam. That makes 2."
                assert finished_of(events).usage.cached_tokens > len(texts[i])
            assert (await engine.stats()).batcher.parked >= 4


class TestThroughput:
    async def test_events_of_a_step_reach_the_loop_in_one_hop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = GatedBackend(reply=lambda _: LONG_REPLY)
        async with running(backend) as engine:
            calls = [await engine.open_call() for _ in range(4)]
            loop = asyncio.get_running_loop()
            hop, hops = loop.call_soon_threadsafe, 0

            def counted(callback: Callable[..., object], *args: Any, **options: Any) -> asyncio.Handle:
                nonlocal hops
                hops += threading.current_thread().name == "voice-llm-engine"
                return hop(callback, *args, **options)

            monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
            batches = backend.counters.batches
            backend.hold()
            streams = [call.generate(user("x"), max_tokens=60) for call in calls]
            await prompts_made(engine)
            backend.release()
            replies = await asyncio.gather(*map(read, streams))
            steps = backend.counters.batches - batches
            assert 0 < hops <= steps
            assert sum(len(events) for events in replies) > 2 * hops

    async def test_stats_are_a_snapshot(self) -> None:
        async with running() as engine, engine.open_call() as call:
            before = await engine.stats()
            usage = finished_of(await read(call.generate(user("x")))).usage
            after = await engine.stats()
            decoded = after.backend.decoded_tokens - before.backend.decoded_tokens
            assert decoded == usage.prompt_tokens - usage.cached_tokens + usage.completion_tokens - 1
            assert after.prefix_bytes > before.prefix_bytes == 0

    async def test_loop_stays_free_while_the_engine_computes(self) -> None:
        backend = GatedBackend()
        async with running(backend) as engine, engine.open_call() as call:
            backend.hold()
            stream = call.generate(user("x"))
            await backend.held()
            reading = asyncio.create_task(read_text(stream))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not reading.done()
            backend.release()
            assert await reading == "You said x. That makes 1."


class TestHealth:
    async def test_is_good_while_it_serves_and_counts_calls(self) -> None:
        async with running() as engine, engine.open_call():
            health = engine.health()
            assert (health.healthy, health.detail, health.open_calls, health.max_calls) == (True, "", 1, 4)

    async def test_is_bad_once_closed(self) -> None:
        async with running() as engine:
            pass
        assert not engine.health().healthy
        assert engine.health().detail == "the engine is closed"

    async def test_repr_says_whether_it_lives(self) -> None:
        async with running() as engine, engine.open_call() as call:
            assert repr(engine) == "<Engine test [live | 1/4 calls]>"
            assert repr(call) == f"<Call {call.call_id} [open | tenant: default]>"
        assert repr(engine).startswith("<Engine test [closed | ")


class Waiters:
    """One of each who can wait for an engine: talking, prefilling, queued, opening, asking."""

    def __init__(self, engine: Engine, backend: GatedBackend) -> None:
        self.engine = engine
        self.backend = backend

    async def start(self) -> list[asyncio.Task[Any]]:
        engine = self.engine
        talking, other, hinted = [await engine.open_call() for _ in range(3)]
        self.backend.hold(after_tokens=5)
        stream = talking.generate(user("x"))
        await self.backend.held()

        async def attempt() -> Call:
            return await engine.open_call()

        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(read(stream)),
            asyncio.create_task(read(other.generate(user("y")))),
            asyncio.create_task(hinted.prefill(user("z"))),
            asyncio.create_task(attempt()),
            asyncio.create_task(engine.stats()),
        ]
        await prompts_made(engine)
        return tasks

    async def assert_all_are_told(self, tasks: list[asyncio.Task[Any]]) -> None:
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
        assert [type(r) for r in results] == [EngineDeadError] * len(tasks)


async def assert_nothing_can_be_done(engine: Engine, call: Call) -> None:
    for attempt in (engine.open_call, engine.stats, engine.check_integrity, lambda: call.prefill(user("x"))):
        with pytest.raises(EngineDeadError):
            await attempt()
    with pytest.raises(EngineDeadError):
        call.generate(user("x"))
    await call.close()
    assert not engine.health().healthy


class TestEnd:
    async def test_close_in_the_middle_of_everything_tells_every_waiter(self) -> None:
        backend = GatedBackend(sequences=8, reply=lambda _: LONG_REPLY)
        async with running(backend) as engine:
            call = await engine.open_call()
            waiters = Waiters(engine, backend)
            tasks = await waiters.start()
            engine._worker.stop(timeout_s=0)  # as close does, but while the step is still under way
            backend.release()
            await engine.close()
            await waiters.assert_all_are_told(tasks)
            await assert_nothing_can_be_done(engine, call)

    async def test_turn_whose_prompt_is_made_too_late_is_told_and_leaves_nothing(self) -> None:
        backend = FakeBackend()
        async with running(backend) as engine:
            call = await engine.open_call()
            gate = threading.Event()
            engine._prompts.submit(gate.wait, 20)
            stream = call.generate(user("x"))
            prefilling = asyncio.create_task(call.prefill(user("x")))
            await asyncio.sleep(0)
            engine._worker.stop(timeout_s=0)
            gate.set()
            with pytest.raises(EngineDeadError):
                await read(stream)
            with pytest.raises(EngineDeadError):
                await prefilling
            assert backend.open_samplers == 0
            assert not engine._sinks

    async def test_close_is_idempotent_and_closes_the_backend_once(self) -> None:
        backend = FakeBackend()
        engine = await Engine.start(backend, profile())
        await asyncio.gather(engine.close(), engine.close())
        await engine.close()
        assert backend.closed

    @pytest.mark.parametrize("fatal", [SystemExit(1), KeyboardInterrupt()], ids=["exit", "interrupt"])
    async def test_death_of_the_thread_tells_every_waiter_present_and_future(self, fatal: BaseException) -> None:
        backend = GatedBackend(sequences=8, reply=lambda _: LONG_REPLY)
        async with running(backend) as engine:
            call = await engine.open_call()
            waiters = Waiters(engine, backend)
            tasks = await waiters.start()
            backend.fatal = fatal
            backend.release()
            await waiters.assert_all_are_told(tasks)
            await assert_nothing_can_be_done(engine, call)
            assert type(fatal).__name__ in engine.health().detail
            assert repr(engine).startswith("<Engine test [dead | ")

    async def test_steps_that_fail_again_and_again_end_the_engine(self) -> None:
        backend = GatedBackend()
        async with running(backend) as engine:
            call = await engine.open_call()
            backend.fatal = SystemError("a native surprise")
            errors = []
            for _ in range(3):
                with pytest.raises(EngineError) as caught:
                    await read(call.generate(user("x")))
                errors.append(type(caught.value))
            assert errors == [EngineError, EngineError, EngineDeadError]
            await asyncio.to_thread(engine._worker._thread.join)
            await assert_nothing_can_be_done(engine, call)
            assert "SystemError" in engine.health().detail

    async def test_one_surprise_costs_the_turns_under_way_and_no_more(self) -> None:
        backend = GatedBackend()
        async with running(backend) as engine, engine.open_call() as call:
            backend.fatal = SystemError("a native surprise")
            with pytest.raises(EngineError, match="a step of the engine failed"):
                await read(call.generate(user("x")))
            backend.fatal = None
            assert await read_text(call.generate(user("y"))) == "You said y. That makes 1."
            assert engine.health().healthy
