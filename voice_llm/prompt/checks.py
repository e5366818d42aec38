"""Checks that all of what comes from outside goes through."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from ..errors import InvalidRequestError

_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_text(value: object, param: str) -> str:
    """Return ``value`` without the white space around it.

    Raises:
        InvalidRequestError: It is not a string, or holds half of a character that JSON escapes in two (a lone
            surrogate).
    """
    if not isinstance(value, str):
        raise InvalidRequestError(f"{param} must be a string, not {type(value).__name__}", param=param)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{param} is not valid Unicode: it holds a lone surrogate", param=param) from None
    return value.strip()


def check_tool_name(name: object, param: str) -> str:
    """Return the name of a tool.

    Raises:
        InvalidRequestError: It cannot be one.
    """
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{param} must be 1 to 64 of the characters A-Z, a-z, 0-9, _ and -, not {name!r}", param=param
        )
    return name


def check_fields(found: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """Refuse an object with a field that would have no effect.

    Raises:
        InvalidRequestError: There is one; it is named.
    """
    for key in found:
        if key not in known:
            raise InvalidRequestError(f"{where} has the unknown field {key!r}", param=f"{where}.{key}")
