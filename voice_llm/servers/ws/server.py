"""WsServer: one WebSocket is one phone call."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any, Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Origin, Subprotocol

from ...errors import ConfigError, SlowConsumerError
from ...session import CallError, Ended, SessionEvent, TurnEnd, to_json
from ...session.contract import check_id
from ..addresses import is_loopback
from ..edge import Edge
from ..identity import Identity
from ..status import ErrorReply, reply_to
from ..tracing import Trace, entered
from .incoming import Incoming
from .opening import SUBPROTOCOL, Opening, header, offered_subprotocols

__all__ = ["WsServer"]

logger = logging.getLogger(__name__)

_RESTART: Final = 1012
_TOO_LARGE: Final = 1009
_INTERNAL: Final = 1011
_PING_EVERY_S: Final = 20.0
_HANDSHAKE_WITHIN_S: Final = 10.0
_CLOSE_WITHIN_S: Final = 2.0
# Messages read ahead of what the call takes; each may be as large as a request.
_MAX_UNREAD_MESSAGES: Final = 2
# Some minutes of speech as text: what a client leaves unread is bounded, in this process and in the kernel.
_WRITE_LIMIT_BYTES: Final = 32 * 1024
_KERNEL_BUFFER_BYTES: Final = 64 * 1024
# The library logs messages and headers at its lowest level, and each garbled handshake with a stack: neither is wanted.
_SILENT: Final = logging.Logger("voice_llm.servers.ws.protocol", level=logging.CRITICAL + 1)


class WsServer:
    """Serves ``/v1/calls/{call_id}``: events of the call contract, one JSON object a text message.

    The call id of the path is the call's; ``start.call_id`` may be left out. A client that comes back with the query
    parameters ``resume_token``, ``last_turn_id`` and ``last_index`` sends no ``start``: they are one. Keys come as
    ``Authorization: Bearer <key>``, from browsers as the subprotocols ``["voice-llm.v1", "bearer.<key>"]``, of which
    the first is selected. What ends the connection is said twice: by an ``error`` event with ``fatal``, and by the
    close code; a page can read both, where it could not read the status of a refused handshake.

    Args:
        edge: What the servers share.
        stalled_after_s: How long a client may leave everything unread before its connection is given up, in seconds.
            It is shorter than what the call itself bears, so that the call is kept as after any other drop.
        clock: Monotonic seconds.
    """

    def __init__(
        self, edge: Edge, *, stalled_after_s: float = 4.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._edge = edge
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._server: Server | None = None

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        config = self._edge.config
        try:
            self._server = await serve(
                self._handle,
                config.host,
                config.ws_port,
                origins=_origins(config.cors_origins),
                select_subprotocol=_select_subprotocol,
                process_request=_refuse_unknown_path,
                compression=None,
                server_header=None,
                open_timeout=_HANDSHAKE_WITHIN_S,
                close_timeout=_CLOSE_WITHIN_S,
                ping_interval=_PING_EVERY_S,
                ping_timeout=_PING_EVERY_S,
                max_size=config.max_request_bytes,
                max_queue=_MAX_UNREAD_MESSAGES,
                write_limit=_WRITE_LIMIT_BYTES,
                logger=_SILENT,
            )
        except OSError as e:
            address = f"{config.host}:{config.ws_port}"
            raise ConfigError(f"ws_port: {address} cannot be listened on: {e.strerror or e}", param="ws_port") from e
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def stop(self, grace_s: float = 0.0) -> None:
        """Close the listener and, after at most ``grace_s``, what is left of its connections; idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close(close_connections=False)
        await asyncio.sleep(0)
        with suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), grace_s)
        await asyncio.gather(*(c.close(_RESTART, "the server is shutting down") for c in server.connections))
        with suppress(TimeoutError):  # a handshake that never comes is no reason to stay
            await asyncio.wait_for(server.wait_closed(), _CLOSE_WITHIN_S)

    async def _handle(self, connection: ServerConnection) -> None:
        request = connection.request
        opening = Opening.of(request.path) if request is not None else None
        if request is None or opening is None:
            return
        arrival_s = self._clock()
        code = "internal"
        try:
            _bound_kernel_buffer(connection)
            with entered(request.headers, name="ws call") as trace:
                code = await self._hold(connection, opening, trace)
                if code != "ok":
                    trace.failed(code)
                logger.info("call: %s, in %.1f s", code, self._clock() - arrival_s)
        except Exception as e:
            # The library would close the connection with 1011, too, but its own log is not wanted.
            logger.error("a connection failed: %s", type(e).__name__, exc_info=e)
            await connection.close(_INTERNAL)
        finally:
            self._edge.host.observer.request_ended("ws", code, self._clock() - arrival_s)

    async def _hold(self, connection: ServerConnection, opening: Opening, trace: Trace) -> str:
        """Hold the call as long as the connection lasts; returns ``"ok"`` or the code of what ended it."""
        try:
            identity = self._identify(connection)
            trace.identify(tenant=identity.tenant, call_id=check_id(opening.call_id, "call_id"))
            await self._converse(connection, opening, identity, trace)
        except ConnectionClosed:
            pass
        except Exception as e:
            reply = reply_to(e)
            await self._refuse(connection, reply)
            return reply.code
        sent = connection.protocol.close_sent
        return "too_large" if sent is not None and sent.code == _TOO_LARGE else "ok"

    def _identify(self, connection: ServerConnection) -> Identity:
        assert connection.request is not None
        headers = connection.request.headers
        return self._edge.authenticator.by_key(
            authorization=header(headers, "Authorization"),
            subprotocols=offered_subprotocols(headers),
            tenant=header(headers, "x-tenant-id"),
            loopback=is_loopback(_host_of(connection.remote_address)),
        )

    async def _converse(self, connection: ServerConnection, opening: Opening, identity: Identity, trace: Trace) -> None:
        incoming = Incoming(
            connection,
            call_id=opening.call_id,
            resume=opening.resume(),
            max_messages=self._edge.config.max_messages,
        )
        # Closing the reader at once is what tells a dropped connection.
        async with aclosing(self._edge.conversations.converse(incoming.events(), identity)) as events:
            async for event in events:
                if isinstance(event, TurnEnd):
                    trace.turn(event.usage, event.timings, event.finish_reason)
                await self._send(connection, event)
                if isinstance(event, Ended):
                    break
        if incoming.refused is not None:
            raise incoming.refused
        await connection.close()

    async def _send(self, connection: ServerConnection, event: SessionEvent) -> None:
        """Send an event.

        Raises:
            ConnectionClosed: Nobody is there any more.
            SlowConsumerError: The client has not read for too long; its connection is gone.
        """
        message = json.dumps(to_json(event), ensure_ascii=False, separators=(",", ":"))
        try:
            async with asyncio.timeout(self._stalled_after_s):
                await connection.send(message)
        except TimeoutError:
            connection.transport.abort()
            raise SlowConsumerError("the client does not read what it is sent") from None

    async def _refuse(self, connection: ServerConnection, reply: ErrorReply) -> None:
        with suppress(ConnectionClosed, SlowConsumerError):
            await self._send(connection, CallError(reply.code, reply.message, reply.retry_after_s, fatal=True))
            await connection.close(reply.status.ws_close, _close_reason(reply))


def _origins(allowed: Sequence[str]) -> list[Origin | None] | None:
    """Return whose pages may connect: those of the configuration, and whatever is no page."""
    return None if "*" in allowed else [None, *(Origin(origin) for origin in allowed)]


def _select_subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


def _refuse_unknown_path(connection: ServerConnection, request: Request) -> Response | None:
    if Opening.of(request.path) is not None:
        return None
    return connection.respond(HTTPStatus.NOT_FOUND, "calls are at /v1/calls/<call id>\n")


def _host_of(address: Any) -> str:
    """Return the host of a socket's peer, ``(host, port, ...)``; nothing where that is gone already."""
    return str(address[0]) if isinstance(address, tuple) and address else ""


def _bound_kernel_buffer(connection: ServerConnection) -> None:
    sock = connection.transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER_BYTES)


def _close_reason(reply: ErrorReply) -> str:
    """Return the code and the hint; a close frame has room for 123 bytes, so the message stays in the event."""
    hint = "" if reply.retry_after_s is None else f"; retry after {reply.retry_after_s:g} s"
    return f"{reply.code}{hint}"
