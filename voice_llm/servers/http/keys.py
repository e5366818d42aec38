"""What middlewares leave on a request for its handler, and handlers for the middlewares."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from ...errors import InvalidRequestError
from ..identity import Identity
from ..tracing import Trace

__all__ = ["ERROR_CODE", "IDENTITY", "REQUEST_ID", "TRACE", "call_id_of", "check_call_id", "route_of"]

REQUEST_ID: Final = web.RequestKey("request_id", str)
TRACE: Final = web.RequestKey("trace", Trace)
IDENTITY: Final = web.RequestKey("identity", Identity)
ERROR_CODE: Final = web.RequestKey("error_code", str)
"""Code of the error that the request ended with; not there where it went well."""

CALL_ID_HEADER: Final = "x-call-id"
_MAX_CALL_ID_CHARS: Final = 128


def call_id_of(request: web.Request) -> str | None:
    """Return which call the request says it belongs to.

    Raises:
        InvalidRequestError: That cannot be a call's id.
    """
    given = request.headers.get(CALL_ID_HEADER)
    return None if given is None else check_call_id(given, CALL_ID_HEADER)


def check_call_id(call_id: str, param: str) -> str:
    """Return the id of a call.

    Raises:
        InvalidRequestError: It cannot be one.
    """
    if not call_id or len(call_id) > _MAX_CALL_ID_CHARS or not call_id.isprintable():
        raise InvalidRequestError(f"{param} must be 1 to {_MAX_CALL_ID_CHARS} printable characters", param=param)
    return call_id


def route_of(request: web.Request) -> str:
    """Return the pattern of the request's path, which unlike the path itself holds nothing that the client chose."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"
