"""What the tests of a remote engine share: a server around an engine on the fake backend, and a connection to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from tests.servers.helpers import edge_around
from voice_llm.remote import RemoteEngine
from voice_llm.servers.edge import Edge
from voice_llm.servers.grpc import GrpcServer
from voice_llm.testing import FakeBackend

PATIENCE_S: Final = 20.0


@asynccontextmanager
async def serving(edge: Edge) -> AsyncIterator[str]:
    """Serve an edge over gRPC; yields where."""
    server = GrpcServer(edge)
    try:
        yield f"127.0.0.1:{await server.start()}"
    finally:
        await server.stop()


@asynccontextmanager
async def remote(backend: FakeBackend | None = None, **options: Any) -> AsyncIterator[tuple[RemoteEngine, Edge]]:
    """A remote engine, and the edge that it is connected to; at the end nothing of any call is left there."""
    async with edge_around(backend, **options) as edge:
        async with serving(edge) as endpoint, await RemoteEngine.connect(endpoint) as engine:
            yield engine, edge
        await until(lambda: not edge.host.lent, "all calls to be closed")


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something to become true."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None
