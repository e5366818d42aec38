"""Phone calls over WebSocket: the events of the call contract as JSON."""

from .server import WsServer

__all__ = ["WsServer"]
