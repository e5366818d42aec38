"""What the tests of the servers share: an edge around an engine on the fake backend."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.runtime.helpers import profile
from voice_llm.config import Profile, ServerConfig
from voice_llm.observer import Observer
from voice_llm.runtime import Engine
from voice_llm.servers.edge import Edge
from voice_llm.servers.host import EngineHost
from voice_llm.testing import FakeBackend


def any_ports(**options: Any) -> ServerConfig:
    """A configuration that listens on free ports of the loopback."""
    ports = dict.fromkeys(("http_port", "grpc_port", "metrics_port", "ws_port"), 0)
    return ServerConfig(**{**ports, **options})


@asynccontextmanager
async def edge_around(
    backend: FakeBackend | None = None,
    *,
    config: ServerConfig | None = None,
    served: Profile | None = None,
    observer: Observer | None = None,
    max_calls: int | None = None,
) -> AsyncIterator[Edge]:
    """An edge around a ready engine, closed at the end; no sequence may be left behind then."""
    backend = backend or FakeBackend()
    chosen = served or profile()

    async def load() -> Engine:
        return await Engine.start(backend, chosen, max_calls=max_calls, observer=observer)

    config = config or any_ports()
    host = EngineHost(load, profile_name=chosen.name, observer=observer, max_per_tenant=config.max_calls_per_tenant)
    host.start()
    engine = await host.wait_ready()
    edge = Edge.around(host, config)
    try:
        yield edge
        await edge.close()
        await engine.check_integrity()
        stats = await engine.stats()
        assert (stats.held_sequences, backend.open_samplers) == (0, 0)
    finally:
        await edge.close()
        await host.close()
