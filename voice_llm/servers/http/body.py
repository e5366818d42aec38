"""Reading a JSON body: within bounds of size, time and depth, and only what can be written down again."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Final

from aiohttp import web

from ...errors import InvalidRequestError, TooLargeError

__all__ = ["BODY_S", "parse_object", "read_object"]

BODY_S: Final = 30.0
"""How long a body may take to arrive, in seconds."""
_MAX_DEPTH: Final = 64
_MAX_NUMBER_CHARS: Final = 300
# Parsing more than this takes a millisecond or more, which the event loop has better uses for.
_PARSE_INLINE_BYTES: Final = 64 * 1024


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
    if len(data) <= _PARSE_INLINE_BYTES:
        return parse_object(data)
    return await asyncio.to_thread(parse_object, data)


def parse_object(data: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InvalidRequestError: It is not one, nests too deep, or holds what JSON or Unicode does not know: ``NaN``,
            endless numbers, half characters.
    """
    try:
        body = json.loads(data.decode(), parse_int=_whole_number, parse_float=_number, parse_constant=_refused_constant)
    except (ValueError, RecursionError) as error:
        reason = "nests too deep" if isinstance(error, RecursionError) else "is not valid JSON"
        raise InvalidRequestError(f"the body {reason}") from None
    if not isinstance(body, dict):
        raise InvalidRequestError("the body must be a JSON object")
    _check(body)
    return body


def _check(body: dict[str, Any]) -> None:
    """Go through all values without recursion: what is let in here is later walked by functions that do recurse."""
    level: list[Any] = [body]
    for _ in range(_MAX_DEPTH):
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, dict):
                for key in value:
                    _check_text(key)
        level = [
            item
            for value in level
            if isinstance(value, (dict, list))
            for item in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise InvalidRequestError(f"the body nests deeper than {_MAX_DEPTH}")


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError("the body is not valid Unicode: it holds a lone surrogate") from None


def _whole_number(text: str) -> int:
    if len(text) > _MAX_NUMBER_CHARS:
        raise ValueError("a number is too long")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _refused_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {max_bytes} bytes")
