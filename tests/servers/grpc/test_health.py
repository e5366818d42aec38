"""Health, reflection, and the life of the server itself."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]

from tests.runtime.helpers import GatedBackend, profile
from tests.servers.grpc.gateway import Gateway, gateway_to, read, serving
from tests.servers.helpers import any_ports, edge_around
from voice_llm.errors import ConfigError
from voice_llm.runtime import Engine, Health
from voice_llm.servers.edge import Edge
from voice_llm.servers.grpc import GrpcServer, health
from voice_llm.servers.host import EngineHost
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

SERVICES = ("sentiric.llm.v1.LlamaService", "voice_llm.v1.CallService", "voice_llm.v1.EngineService")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def check(channel: grpc.aio.Channel, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_ready_engine_is_serving_under_each_name(service: str) -> None:
    async with gateway_to() as gateway:
        assert await check(gateway.channel, service) == SERVING


async def test_unknown_service_is_not_found() -> None:
    async with gateway_to() as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(gateway.channel, "other")
        watch = health_pb2_grpc.HealthStub(gateway.channel).Watch(health_pb2.HealthCheckRequest(service="other"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watches_see_loading_ready_and_draining_each_on_its_own() -> None:
    may_load = asyncio.Event()

    async def load() -> Engine:
        await may_load.wait()
        return await Engine.start(FakeBackend(), profile())

    host = EngineHost(load, profile_name="test")
    edge = Edge.around(host, any_ports())
    async with serving(edge) as gateway:
        host.start()
        assert await check(gateway.channel) == NOT_SERVING
        stub = health_pb2_grpc.HealthStub(gateway.channel)
        leaving, staying = (stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2))
        assert [(await watch.read()).status for watch in (leaving, staying)] == [NOT_SERVING] * 2
        leaving.cancel()
        may_load.set()
        async with asyncio.timeout(20):
            assert (await staying.read()).status == SERVING
            await host.drain(0)
            assert (await staying.read()).status == NOT_SERVING
    await edge.close()
    await host.close()


async def test_watches_share_one_look_at_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    every_s, watches = 0.01, 40
    monkeypatch.setattr(health, "_LOOK_EVERY_S", every_s)
    async with edge_around() as edge, serving(edge) as gateway:
        engine, looks = edge.host.require(), 0
        look = engine.health

        def counted() -> Health:
            nonlocal looks
            looks += 1
            return look()

        monkeypatch.setattr(engine, "health", counted)
        stub = health_pb2_grpc.HealthStub(gateway.channel)
        began_s = time.monotonic()
        opened = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(watches)]
        assert [(await watch.read()).status for watch in opened] == [SERVING] * watches
        await asyncio.sleep(20 * every_s)
        assert 2 <= looks - watches <= (time.monotonic() - began_s) / every_s
        for watch in opened:
            watch.cancel()


async def test_watches_are_bounded_and_one_that_ends_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_MAX_WATCHES", 2)
    async with gateway_to() as gateway:
        stub = health_pb2_grpc.HealthStub(gateway.channel)
        first, second = (stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2))
        assert [(await watch.read()).status for watch in (first, second)] == [SERVING] * 2
        third = stub.Watch(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await third.read()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()
        async with asyncio.timeout(20):
            while await status_of_watch(stub.Watch(health_pb2.HealthCheckRequest())) != SERVING:
                await asyncio.sleep(0.005)
        second.cancel()


async def status_of_watch(watch: Any) -> int | None:
    """Open a watch for a moment; None where it is refused."""
    try:
        return int((await watch.read()).status)
    except grpc.aio.AioRpcError:
        return None
    finally:
        watch.cancel()


async def test_dead_engine_is_not_serving() -> None:
    backend = GatedBackend()

    async def load() -> Engine:
        return await Engine.start(backend, profile())

    host = EngineHost(load, profile_name="test")
    host.start()
    await host.wait_ready()
    edge = Edge.around(host, any_ports())
    async with serving(edge) as gateway:
        backend.fatal = SystemExit()
        error = await gateway.refusal("Hello?")
        assert error.code() is grpc.StatusCode.INTERNAL
        assert await check(gateway.channel) == NOT_SERVING
    await edge.close()
    await host.close()


async def test_reflection_lists_the_services_and_describes_them() -> None:
    async with gateway_to() as gateway:
        stub = reflection_pb2_grpc.ServerReflectionStub(gateway.channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICES[0]),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICES[1]),
        ]
        answers = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    listed = {service.name for service in answers[0].list_services_response.service}
    assert listed >= {*SERVICES, "grpc.health.v1.Health"}
    assert all(answer.file_descriptor_response.file_descriptor_proto for answer in answers[1:])


async def test_port_in_use_is_a_config_error_that_names_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with edge_around(config=any_ports(grpc_port=port)) as edge:
            with pytest.raises(ConfigError, match=f"grpc_port.*{port}"):
                await GrpcServer(edge).start()


async def test_two_servers_cannot_share_a_port() -> None:
    async with edge_around() as edge:
        first = GrpcServer(edge)
        port = await first.start()
        async with edge_around(config=any_ports(grpc_port=port)) as other:
            with pytest.raises(ConfigError):
                await GrpcServer(other).start()
        await first.stop()


async def test_stop_lets_what_runs_end_within_the_grace_and_is_idempotent() -> None:
    backend = GatedBackend()
    async with edge_around(backend) as edge:
        server = GrpcServer(edge)
        port = await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            gateway = Gateway(channel, f"127.0.0.1:{port}")
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            backend.hold(after_tokens=3)
            reply = gateway.start("Hello?")
            await anext(aiter(reply))
            stopping = asyncio.create_task(server.stop(120.0))
            await asyncio.sleep(0)
            backend.release()
            assert (await read(reply)).reason == "stop"
            async with asyncio.timeout(30):  # the watch does not hold it up
                await stopping
            await server.stop()


async def test_stop_without_grace_cancels_what_runs_and_leaves_nothing_behind() -> None:
    backend = GatedBackend()
    async with edge_around(backend) as edge, serving(edge) as gateway:
        backend.hold(after_tokens=3)
        reply = gateway.start("Hello?")
        await anext(aiter(reply))
        backend.release()
