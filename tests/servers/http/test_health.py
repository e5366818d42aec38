"""``/health``: what a load balancer goes by."""

from __future__ import annotations

import asyncio

import pytest

from tests.runtime.helpers import GatedBackend, profile
from tests.servers.helpers import any_ports
from voice_llm.runtime import Engine
from voice_llm.servers.edge import Edge
from voice_llm.servers.host import EngineHost
from voice_llm.testing import FakeBackend

from .helpers import on, said, serving

pytestmark = pytest.mark.unit


async def test_a_ready_engine_is_healthy_and_tells_of_its_room() -> None:
    async with serving(max_calls=3, config=any_ports(api_keys={"secret": "acme"})) as served:
        assert await served.get("/health") == (200, {
            "status": "healthy",
            "model_ready": True,
            "current_profile": "test",
            "capacity": {"active": 0, "total": 3, "available": 3},
        })  # fmt: skip
        async with served.engine.open_call():
            _, body = await served.get("/health")
            assert body["capacity"] == {"active": 1, "total": 3, "available": 2}


async def test_it_is_loading_then_healthy_then_draining() -> None:
    loaded = asyncio.Event()

    async def load() -> Engine:
        await loaded.wait()
        return await Engine.start(FakeBackend(), profile())

    host = EngineHost(load, profile_name="test")
    host.start()
    edge = Edge.around(host, any_ports())
    try:
        async with on(edge) as served:
            status, body = await served.get("/health")
            assert (status, body["status"], body["model_ready"]) == (503, "loading", False)
            assert body["capacity"] == {"active": 0, "total": 0, "available": 0}
            loaded.set()
            await host.wait_ready()
            status, body = await served.get("/health")
            assert (status, body["status"], body["model_ready"]) == (200, "healthy", True)
            await host.drain(1)
            status, body = await served.get("/health")
            assert (status, body["status"], body["capacity"]["available"]) == (503, "draining", 0)
    finally:
        await edge.close()
        await host.close()


async def test_a_model_that_cannot_be_loaded_is_unhealthy() -> None:
    async def load() -> Engine:
        raise FileNotFoundError("/secret/path")

    host = EngineHost(load, profile_name="test")
    host.start()
    await host.failed.wait()
    edge = Edge.around(host, any_ports())
    async with on(edge) as served:
        status, body = await served.get("/health")
        assert (status, body["status"]) == (503, "unhealthy")
        assert "secret" not in str(body)
    await edge.close()
    await host.close()


async def test_a_dead_engine_is_unhealthy_and_says_nothing_of_why() -> None:
    backend = GatedBackend()

    async def load() -> Engine:
        return await Engine.start(backend, profile())

    host = EngineHost(load, profile_name="test")
    host.start()
    await host.wait_ready()
    edge = Edge.around(host, any_ports())
    try:
        async with on(edge) as served:
            backend.fatal = SystemExit("0xdeadbeef")
            status, body = await served.ask(said("Hi."))
            assert (status, body["error"]["code"]) in ((500, "internal"), (503, "loading"))
            status, body = await served.get("/health")
            assert (status, body["status"], body["model_ready"]) == (503, "unhealthy", False)
            assert "0xdeadbeef" not in str(body)
            await host.failed.wait()
            status, body = await served.ask(said("Hi."))
            assert (status, body["error"]["code"]) == (503, "loading")
            assert (await served.get("/health"))[1]["status"] == "unhealthy"
    finally:
        await edge.close()
        await host.close()


async def test_a_stalled_engine_is_unhealthy_while_it_is_stalled() -> None:
    now = [0.0]
    backend = GatedBackend()

    async def load() -> Engine:
        return await Engine.start(backend, profile(), clock=lambda: now[0])

    host = EngineHost(load, profile_name="test")
    host.start()
    await host.wait_ready()
    edge = Edge.around(host, any_ports())
    try:
        async with on(edge) as served:
            backend.hold()
            asking = asyncio.ensure_future(served.ask(said("Hi.")))
            await backend.held()
            assert (await served.get("/health"))[0] == 200
            now[0] = 31.0
            assert (await served.get("/health"))[1]["status"] == "unhealthy"
            backend.release()
            await asking
            while (await served.get("/health"))[0] != 200:
                await asyncio.sleep(0.01)
    finally:
        backend.release()
        await edge.close()
        await host.close()
