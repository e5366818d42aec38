"""CORS: which web pages may use the interface from a browser; none, unless they are named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final

from aiohttp import hdrs, web

__all__ = ["Cors"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_METHODS: Final = "GET, POST, DELETE"
_EXPOSED: Final = "Retry-After, traceparent, x-request-id, x-span-id, x-trace-id"
_MAX_AGE_S: Final = 600


class Cors:
    """Lets the pages of some origins in.

    Args:
        origins: Such as ``https://desk.example.org``; ``*`` lets all in.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    @web.middleware
    async def answer_preflights(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer what browsers ask beforehand, without a key: they send none with it."""
        asked = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        if not asked or not self._allows(request):
            return await handler(request)
        headers = {hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS, hdrs.ACCESS_CONTROL_MAX_AGE: str(_MAX_AGE_S)}
        if wanted := request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS):
            headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = wanted  # clients add headers of their own, in every version
        return web.Response(status=204, headers=headers)

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let the page read the response; run just before its headers are sent."""
        if not self._origins:
            return
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if self._allows(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = request.headers[hdrs.ORIGIN]
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED

    def _allows(self, request: web.Request) -> bool:
        origin = request.headers.get(hdrs.ORIGIN)
        return origin is not None and (origin in self._origins or "*" in self._origins)
