"""gRPC: the gateway contract, the call contract, the engine's own face, health and reflection."""

from .server import GrpcServer

__all__ = ["GrpcServer"]
