"""What middlewares leave on a request for its handler, and handlers for the middlewares."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from ...session.contract import check_id
from ..identity import Identity
from ..tracing import Trace

__all__ = ["ERROR_CODE", "IDENTITY", "REQUEST_ID", "TRACE", "call_id_of", "route_of"]

REQUEST_ID: Final = web.RequestKey("request_id", str)
TRACE: Final = web.RequestKey("trace", Trace)
IDENTITY: Final = web.RequestKey("identity", Identity)
ERROR_CODE: Final = web.RequestKey("error_code", str)
"""Code of the error that the request ended with; not there where it went well."""

_CALL_ID_HEADER: Final = "x-call-id"


def call_id_of(request: web.Request) -> str | None:
    """Return which call the request says it belongs to.

    Raises:
        InvalidRequestError: That cannot be a call's id.
    """
    given = request.headers.get(_CALL_ID_HEADER)
    return None if given is None else check_id(given, _CALL_ID_HEADER)


def route_of(request: web.Request) -> str:
    """Return the pattern of the request's path, which unlike the path itself holds nothing that the client chose."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"
