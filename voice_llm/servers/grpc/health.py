"""``grpc.health.v1``, answered from what the engine is doing at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2 as pb  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2_grpc as pb_grpc

from ..edge import Edge
from ..host import HostState
from .peer import Context

__all__ = ["HealthService"]

_LOOK_EVERY_S: Final = 0.2
_MAX_WATCHES: Final = 256


class HealthService(pb_grpc.HealthServicer):  # type: ignore[misc]
    """Says whether calls are taken: not while the engine is loading, draining, stalled or dead.

    Probes are no requests of callers: the observer is not told of them.

    Args:
        edge: Whose engine it is.
        services: Names that are known; all share one engine and so one status.
    """

    name: Final[str] = pb.DESCRIPTOR.services_by_name["Health"].full_name

    def __init__(self, edge: Edge, services: Collection[str]) -> None:
        self._edge = edge
        self._services = frozenset(services)
        self._closing = False
        # One look for all watches: they can be many, and nobody has to say who it is to open one.
        self._watches = 0
        self._healthy = False
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""
        pb_grpc.add_HealthServicer_to_server(self, server)

    def close(self) -> None:
        """End all watches, which would else hold up the end of the server."""
        self._closing = True
        self._changed.set()
        if self._timer is not None:
            self._timer.cancel()

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802 - protobuf's name
        """Say how the engine is."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no service of that name")
        return pb.HealthCheckResponse(status=self._status(request.service, healthy=self._is_healthy()))

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802 - protobuf's name
        """Say how the engine is, and say it again whenever that has changed."""
        if self._watches >= _MAX_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"there are {_MAX_WATCHES} watches already")
        self._watches += 1
        try:
            self._look()
            told = None
            while not self._closing:
                changed = self._changed  # of now: what changes while the write waits is not missed
                status = self._status(request.service, healthy=self._healthy)
                if status != told:
                    await context.write(pb.HealthCheckResponse(status=status))
                    told = status
                await changed.wait()
        finally:
            self._watches -= 1

    def _look(self) -> None:
        """Tell the watches of a change, and look again soon as long as there are any."""
        healthy = self._is_healthy()
        if healthy != self._healthy:
            self._healthy = healthy
            self._changed.set()
            self._changed = asyncio.Event()
        if self._timer is not None:
            self._timer.cancel()
        if self._watches and not self._closing:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _status(self, service: str, *, healthy: bool) -> int:
        if service not in self._services:
            return int(pb.HealthCheckResponse.SERVICE_UNKNOWN)
        return int(pb.HealthCheckResponse.SERVING if healthy else pb.HealthCheckResponse.NOT_SERVING)

    def _is_healthy(self) -> bool:
        host = self._edge.host
        return host.state is HostState.READY and host.engine is not None and host.engine.health().healthy
