"""Errors as HTTP clients see them: one body for all, ours and those of the HTTP library."""

from __future__ import annotations

import math
from typing import Final

from aiohttp import web

from ..status import INTERNAL_MESSAGE, ErrorReply

__all__ = ["error_response", "reply_to_http"]

_RETRIED: Final = (429, 503)


def error_response(reply: ErrorReply, *, status: int | None = None, allow: str | None = None) -> web.Response:
    """Return the response to a request that failed.

    Args:
        reply: What the client may know.
        status: Where HTTP has a closer one than the table's.
        allow: The methods that the path has.
    """
    status = status or reply.status.http
    response = web.json_response(reply.as_json(), status=status)
    if status in _RETRIED:
        response.headers["Retry-After"] = str(max(1, math.ceil(reply.retry_after_s or 1)))
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if allow is not None:
        response.headers["Allow"] = allow
    return response


def reply_to_http(error: web.HTTPException) -> ErrorReply:
    """Return what a client may know of an error of the HTTP library."""
    if error.status >= 500:
        return ErrorReply("internal", INTERNAL_MESSAGE)
    if error.status == 404:
        return ErrorReply("not_found", "there is no such path")
    if error.status == 413:
        return ErrorReply("too_large", "the body is too large")
    return ErrorReply("invalid_request", error.reason.lower())
