"""Edge: what all servers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..config import ServerConfig
from .auth import Authenticator
from .conversations import Conversations
from .host import EngineHost
from .soft_calls import SoftCalls

__all__ = ["Edge", "Server"]


@dataclass(frozen=True, slots=True)
class Edge:
    """What all servers share.

    Attributes:
        config: Addresses and bounds.
        host: Lends the engine.
        authenticator: Says who is asking.
        soft_calls: Calls behind HTTP and GenerateStream.
        conversations: Calls behind Converse and WebSocket.
    """

    config: ServerConfig
    host: EngineHost
    authenticator: Authenticator
    soft_calls: SoftCalls
    conversations: Conversations

    @classmethod
    def around(cls, host: EngineHost, config: ServerConfig) -> Edge:
        """Put an edge around an engine."""
        soft_calls = SoftCalls(host, idle_s=config.call_idle_s)
        return cls(config, host, Authenticator(config), soft_calls, Conversations(host, config))

    async def close(self) -> None:
        """End the calls that are kept; the servers are stopped before, the host is closed after."""
        await self.conversations.close()
        await self.soft_calls.close()


class Server(Protocol):
    """One interface of the engine."""

    async def start(self) -> int:
        """Listen; returns the port, which matters where the configuration says 0."""

    async def stop(self, grace_s: float = 0.0) -> None:
        """Close the listener and, after at most ``grace_s``, what is left of its connections; idempotent."""
