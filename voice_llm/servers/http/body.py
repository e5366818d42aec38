"""Reading a JSON body within bounds of size and time."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

from ...errors import InvalidRequestError, TooLargeError
from ..strict_json import read_json

__all__ = ["BODY_S", "read_object"]

BODY_S: Final = 30.0
"""How long a body may take to arrive, in seconds."""


async def read_object(request: web.Request, *, max_bytes: int, within_s: float = BODY_S) -> dict[str, Any]:
    """Read the JSON object that is the request's body.

    Raises:
        InvalidRequestError: It is not one, is not sent as ``application/json``, or takes too long to arrive.
        TooLargeError: It is longer than ``max_bytes``.
    """
    # Also what keeps web pages out that were not let in: without a preflight they cannot send this type.
    if request.content_type != "application/json":
        raise InvalidRequestError("the body must be sent with Content-Type: application/json", param="content-type")
    if request.content_length is not None and request.content_length > max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(within_s):
            data = await request.read()
    except TimeoutError:
        raise InvalidRequestError(f"the body did not arrive within {within_s:g} s") from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(max_bytes) from None
    except web.RequestPayloadError:
        raise InvalidRequestError("the body cannot be read as it is encoded") from None
    body = await read_json(data, what="the body")
    if not isinstance(body, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return body


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {max_bytes} bytes")
