"""EngineHost: what servers get while an engine is loaded, used, drained and lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.runtime.helpers import GatedBackend, profile
from voice_llm.errors import DrainingError, LoadingError, ModelFileError
from voice_llm.runtime import Engine
from voice_llm.servers.host import EngineHost, HostState
from voice_llm.testing import FakeBackend, VirtualClock

pytestmark = pytest.mark.unit


@asynccontextmanager
async def hosting(backend: FakeBackend, *, gate: asyncio.Event | None = None) -> AsyncIterator[EngineHost]:
    async def load() -> Engine:
        if gate is not None:
            await gate.wait()
        return await Engine.start(backend, profile())

    host = EngineHost(load, profile_name="test")
    host.start()
    try:
        yield host
    finally:
        await host.close()


async def test_it_is_loading_until_the_engine_is_there() -> None:
    gate = asyncio.Event()
    async with hosting(FakeBackend(), gate=gate) as host:
        with pytest.raises(LoadingError) as caught, host.admit("acme"):
            pass
        assert caught.value.retry_after_s > 0
        gate.set()
        engine = await host.wait_ready()
        with host.admit("acme") as lent:
            assert lent is engine
        assert host.state is HostState.READY


async def test_draining_takes_nothing_new_and_waits_for_what_is_under_way() -> None:
    async with hosting(FakeBackend()) as host:
        await host.wait_ready()
        with host.admit("acme"):
            drain = asyncio.ensure_future(host.drain(60))
            await asyncio.sleep(0)
            with pytest.raises(DrainingError), host.admit("acme"):
                pass
            assert not drain.done()
        assert await drain


async def test_draining_gives_up_in_time() -> None:
    async with hosting(FakeBackend()) as host:
        await host.wait_ready()
        with host.admit("acme"):
            assert not await host.drain(0.01)


async def test_an_engine_that_cannot_be_loaded_fails_the_host_and_those_who_wait() -> None:
    async def load() -> Engine:
        raise ModelFileError("model.gguf is truncated")

    host = EngineHost(load, profile_name="test")
    host.start()
    with pytest.raises(ModelFileError):
        await host.wait_ready()
    assert host.failed.is_set()
    assert host.state is HostState.FAILED
    with pytest.raises(LoadingError), host.admit("acme"):
        pass
    await host.close()


async def test_a_dead_engine_is_noticed_without_a_request() -> None:
    backend = GatedBackend()
    async with hosting(backend) as host:
        engine = await host.wait_ready()
        async with engine.open_call() as call:
            backend.fatal = SystemExit(1)
            with pytest.raises(Exception, match="engine"):
                async for _ in call.generate([{"role": "user", "content": "Hello?"}]):
                    pass
        await asyncio.wait_for(host.failed.wait(), 20)
        assert host.error is None
        with pytest.raises(LoadingError), host.admit("acme"):
            pass


async def test_an_engine_that_is_stuck_is_given_up_after_a_while() -> None:
    backend, clock = GatedBackend(), VirtualClock()

    async def load() -> Engine:
        return await Engine.start(backend, profile(), clock=clock)

    host = EngineHost(load, profile_name="test", give_up_s=0.0)
    host.start()
    engine = await host.wait_ready()
    async with engine.open_call() as call:
        backend.hold()
        reply = call.generate([{"role": "user", "content": "Hello?"}])
        await backend.held()
        assert not host.failed.is_set()
        clock.advance(3600)
        await asyncio.wait_for(host.failed.wait(), 20)
        backend.release()
        reply.cancel()
    await host.close()


async def test_closing_while_loading_ends_the_load_and_whoever_waits() -> None:
    gate = asyncio.Event()
    async with hosting(FakeBackend(), gate=gate) as host:
        waiting = asyncio.ensure_future(host.wait_ready())
        await asyncio.sleep(0)
        await host.close()
        with pytest.raises(LoadingError):
            await waiting


async def test_repr_says_where_it_stands() -> None:
    async with hosting(FakeBackend()) as host:
        await host.wait_ready()
        with host.admit("acme"):
            assert repr(host) == "<EngineHost test [ready | lent: 1]>"
