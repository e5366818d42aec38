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
        self._closing = asyncio.Event()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""
        pb_grpc.add_HealthServicer_to_server(self, server)

    def close(self) -> None:
        """End all watches, which would else hold up the end of the server."""
        self._closing.set()

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802 - protobuf's name
        """Say how the engine is."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no service of that name")
        return pb.HealthCheckResponse(status=self._status(request.service))

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802 - protobuf's name
        """Say how the engine is, and say it again whenever that has changed."""
        told = None
        while not self._closing.is_set():
            status = self._status(request.service)
            if status != told:
                await context.write(pb.HealthCheckResponse(status=status))
                told = status
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._closing.wait()
            except TimeoutError:
                continue

    def _status(self, service: str) -> int:
        if service not in self._services:
            return int(pb.HealthCheckResponse.SERVICE_UNKNOWN)
        host = self._edge.host
        healthy = host.state is HostState.READY and host.engine is not None and host.engine.health().healthy
        return int(pb.HealthCheckResponse.SERVING if healthy else pb.HealthCheckResponse.NOT_SERVING)
