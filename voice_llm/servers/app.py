"""App: all servers around one engine, from the first listener to the drained end."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from ..config import ServerConfig
from .edge import Edge, Server
from .grpc import GrpcServer
from .host import EngineHost, HostState
from .http import HttpServer
from .memory import give_memory_back
from .metrics import PrometheusObserver
from .metrics_server import MetricsServer
from .ws import WsServer

__all__ = ["App", "Ports"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the servers listen."""

    http: int
    grpc: int
    metrics: int
    ws: int


class App:
    """All servers around one engine.

    Args:
        host: Loads the engine; the app closes it.
        config: Addresses and bounds.
        observer: What the metrics are made of; the same that the host and its engine tell.
    """

    def __init__(self, host: EngineHost, config: ServerConfig, observer: PrometheusObserver) -> None:
        self._host = host
        self._config = config
        self._edge = Edge.around(host, config)
        self._http = HttpServer(self._edge)
        self._grpc = GrpcServer(self._edge)
        self._metrics = MetricsServer(self._edge, observer)
        self._ws = WsServer(self._edge)
        self._memory: asyncio.Task[None] | None = None

    async def start(self) -> Ports:
        """Listen at once, and load the engine meanwhile.

        Raises:
            ConfigError: A port is taken, or a TLS file cannot be used.
        """
        ports = Ports(
            http=await self._http.start(),
            grpc=await self._grpc.start(),
            metrics=await self._metrics.start(),
            ws=await self._ws.start(),
        )
        self._memory = asyncio.create_task(give_memory_back(), name="voice-llm-memory")
        self._host.start()
        return ports

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event) -> bool:
        """Serve until told to stop, or until the engine has failed.

        Args:
            stop: Take nothing new and end when what is under way has ended, after ``drain_s`` at most.
            hurry: End at once.

        Returns:
            Whether the end is a wanted one; False where the engine has failed.
        """
        await _first(stop, self._host.failed)
        if self._host.state is HostState.FAILED:
            return False
        logger.info("draining: %d calls and requests are under way", self._host.lent)
        drain = asyncio.ensure_future(self._host.drain(self._config.drain_s))
        in_a_hurry = asyncio.ensure_future(hurry.wait())
        await asyncio.wait({drain, in_a_hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (drain, in_a_hurry):
            task.cancel()
        await asyncio.gather(drain, in_a_hurry, return_exceptions=True)
        return True

    async def close(self) -> None:
        """End all calls, close the listeners and free the model; idempotent."""
        await self._edge.close()
        servers: tuple[Server, ...] = (self._grpc, self._ws, self._http, self._metrics)
        for server in servers:
            await server.stop()
        await self._host.close()
        if self._memory is not None:
            self._memory.cancel()
            await asyncio.gather(self._memory, return_exceptions=True)


async def _first(*events: asyncio.Event) -> None:
    """Wait for the first of several events."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
