"""Strict JSON: within bounds of depth and numbers, and only what can be written down again."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Final

from ..errors import InvalidRequestError

__all__ = ["parse_json", "read_json"]

_MAX_DEPTH: Final = 64
_MAX_NUMBER_CHARS: Final = 300
# Parsing more than this takes a millisecond or more, which the event loop has better uses for.
_PARSE_INLINE: Final = 64 * 1024


async def read_json(data: bytes | str, *, what: str = "the message") -> Any:
    """As ``parse_json``, but off the event loop where ``data`` is large.

    Raises:
        InvalidRequestError: As ``parse_json``.
    """
    if len(data) <= _PARSE_INLINE:
        return parse_json(data, what=what)
    return await asyncio.to_thread(parse_json, data, what=what)


def parse_json(data: bytes | str, *, what: str = "the message") -> Any:
    """Read a JSON value.

    Args:
        data: The text, or its UTF-8.
        what: What it is, to begin the message of an error with.

    Raises:
        InvalidRequestError: It is no JSON, nests too deep, or holds what JSON or Unicode does not know: ``NaN``,
            endless numbers, half characters.
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = json.loads(text, parse_int=_whole_number, parse_float=_number, parse_constant=_refused_constant)
    except (ValueError, RecursionError) as error:
        reason = "nests too deep" if isinstance(error, RecursionError) else "is not valid JSON"
        raise InvalidRequestError(f"{what} {reason}") from None
    _check(value, what)
    return value


def _check(value: Any, what: str) -> None:
    """Go through all values without recursion: what is let in here is later walked by functions that do recurse."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        for item in level:
            if isinstance(item, str):
                _check_text(item, what)
            elif isinstance(item, dict):
                for key in item:
                    _check_text(key, what)
        level = [
            item
            for holder in level
            if isinstance(holder, (dict, list))
            for item in (holder.values() if isinstance(holder, dict) else holder)
        ]
        if not level:
            return
    raise InvalidRequestError(f"{what} nests deeper than {_MAX_DEPTH}")


def _check_text(text: str, what: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{what} is not valid Unicode: it holds a lone surrogate") from None


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
