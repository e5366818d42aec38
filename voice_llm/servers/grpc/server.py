"""GrpcServer: the engine behind gRPC."""

from __future__ import annotations

from typing import Final

import grpc
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from ..._proto import engine_pb2
from ...errors import ConfigError
from ..edge import Edge
from .converse import CallService
from .engine_service import add_to as add_engine_service
from .generate_stream import LlamaService
from .health import HealthService
from .tls import mutual_tls

__all__ = ["GrpcServer"]

_ENGINE_SERVICE: Final = engine_pb2.DESCRIPTOR.services_by_name["EngineService"].full_name
_OPTIONS: Final = (
    # Two servers on one port would each get some of the calls.
    ("grpc.so_reuseport", 0),
    # A peer that vanished without a word is noticed within half a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.max_concurrent_streams", 1024),
    # One that holds no RPC for so long is closed; its client connects again when it needs to.
    ("grpc.max_connection_idle_ms", 600_000),
)


class GrpcServer:
    """Serves ``sentiric.llm.v1.LlamaService``, ``voice_llm.v1``, health and reflection.

    Args:
        edge: What all servers share.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._server: grpc.aio.Server | None = None
        self._health: HealthService | None = None

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            ConfigError: The port is taken, or a TLS file cannot be used.
        """
        config = self._edge.config
        largest = config.max_request_bytes
        options = (*_OPTIONS, ("grpc.max_receive_message_length", largest))
        credentials = mutual_tls(config.tls) if config.tls is not None else None
        server = grpc.aio.server(options=options)
        self._health = self._add_services(server)
        host = f"[{config.host}]" if ":" in config.host else config.host
        address = f"{host}:{config.grpc_port}"
        try:
            if credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, credentials)
        except RuntimeError:
            raise ConfigError(f"grpc_port: cannot listen on {address}; is it in use?", param="grpc_port") from None
        await server.start()
        self._server = server
        return port

    async def stop(self, grace_s: float = 0.0) -> None:
        """Close the listener and, after at most ``grace_s``, what is left of its RPCs; idempotent."""
        if self._health is not None:
            self._health.close()
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)

    def _add_services(self, server: grpc.aio.Server) -> HealthService:
        names = (LlamaService.name, CallService.name, _ENGINE_SERVICE)
        health = HealthService(self._edge, ("", *names))
        LlamaService(self._edge).add_to(server)
        CallService(self._edge).add_to(server)
        add_engine_service(server, self._edge)
        health.add_to(server)
        reflection.enable_server_reflection((*names, HealthService.name, reflection.SERVICE_NAME), server)
        return health
