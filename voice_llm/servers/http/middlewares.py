"""What each request goes through before its handler: it is counted, its errors are worded, its sender identified."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import uuid4

from aiohttp import web

from ..addresses import is_loopback
from ..auth import TENANT_HEADER
from ..edge import Edge
from ..status import reply_to
from ..tracing import entered
from .errors import error_response, reply_to_http
from .request_keys import ERROR_CODE, IDENTITY, REQUEST_ID, TRACE, route_of

__all__ = ["PUBLIC", "Middlewares", "add_headers"]

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PUBLIC: Final = "/health"
"""The one path that asks for no key: whoever looks after the process has none."""

_CANCELLED: Final = "cancelled"


class Middlewares:
    """Goes around all handlers.

    Args:
        edge: What all servers share.

    Attributes:
        running: The tasks of requests that are under way.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.running: set[asyncio.Task[object]] = set()

    @web.middleware
    async def observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Trace a request and count it; the outermost."""
        request[REQUEST_ID] = f"req-{uuid4().hex}"
        task = asyncio.current_task()
        assert task is not None
        self.running.add(task)
        began_s = time.monotonic()
        with entered(request.headers, name=f"http {request.method} {route_of(request)}") as trace:
            request[TRACE] = trace
            code, status = _CANCELLED, 0
            try:
                response = await handler(request)
                code, status = "ok", response.status
                return response
            finally:
                self.running.discard(task)
                self._ended(request, request.get(ERROR_CODE, code), status, time.monotonic() - began_s)

    @web.middleware
    async def word_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer with the error's status and our body."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            reply = reply_to_http(error)
            response = error_response(reply, status=error.status, allow=error.headers.get("Allow"))
        except ConnectionError:
            raise
        except Exception as error:
            reply = reply_to(error)
            response = error_response(reply)
        request[ERROR_CODE] = reply.code
        return response

    @web.middleware
    async def identify(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Find out who is asking, before anything of the body is read."""
        if route_of(request) != PUBLIC:
            identity = self._edge.authenticator.by_key(
                authorization=request.headers.get("Authorization"),
                tenant=request.headers.get(TENANT_HEADER),
                loopback=_is_on_this_machine(request),
            )
            request[IDENTITY] = identity
            request[TRACE].identify(tenant=identity.tenant)
        return await handler(request)

    def _ended(self, request: web.Request, code: str, status: int, took_s: float) -> None:
        if code not in ("ok", _CANCELLED):
            request[TRACE].failed(code)
        if (route := route_of(request)) == PUBLIC:
            return  # asked for every few seconds, for ever: it would outnumber all else
        self._edge.host.observer.request_ended("http", code, took_s)
        logger.info(
            "%s %s: %s, status %d, in %.1f ms (%s)", request.method, route, code, status, took_s * 1e3,
            request[REQUEST_ID],
        )  # fmt: skip


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Say which request this answers; run just before the headers are sent, of streams too."""
    if REQUEST_ID in request:
        response.headers["x-request-id"] = request[REQUEST_ID]
        response.headers.update(request[TRACE].headers())
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Server"] = "voice_llm"  # not what it is made of, and in which version


def _is_on_this_machine(request: web.Request) -> bool:
    """A peer that is gone, or whose socket has no address, is not."""
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    return isinstance(peer, tuple) and is_loopback(str(peer[0]))
