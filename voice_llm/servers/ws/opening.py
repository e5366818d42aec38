"""Opening: what a WebSocket's first request says: which call, and where it left off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import parse_qsl, unquote

from websockets.datastructures import Headers, MultipleValuesError

from ...errors import InvalidRequestError
from ...session.contract import Start

__all__ = ["SUBPROTOCOL", "Opening", "header", "offered_subprotocols"]

SUBPROTOCOL: Final = "voice-llm.v1"
"""What a browser offers beside ``bearer.<key>``: it needs one that can be answered, and a key never is."""

_PREFIX: Final = "/v1/calls/"
_RESUME: Final = ("resume_token", "last_turn_id", "last_index")
_MAX_INDEX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Opening:
    """Which call is opened.

    Attributes:
        call_id: From the path.
        query: What follows the path, not yet read.
    """

    call_id: str
    query: str

    @classmethod
    def of(cls, target: str) -> Self | None:
        """Read a request's target, ``/v1/calls/<call id>[?query]``; None where there is nothing of that name."""
        path, _, query = target.partition("?")
        name = path.removeprefix(_PREFIX)
        if name == path or not name or "/" in name:
            return None
        try:
            return cls(unquote(name, errors="strict"), query)
        except UnicodeDecodeError:
            return None

    def resume(self) -> Start | None:
        """Return the ``start`` that ``resume_token``, ``last_turn_id`` and ``last_index`` stand for; None without them.

        Raises:
            InvalidRequestError: A parameter is unknown, given twice, or has a value that is not allowed.
        """
        fields = _fields(self.query)
        if not fields:
            return None
        if not fields.get("resume_token"):
            raise InvalidRequestError("the query resumes a call only with its resume_token", param="resume_token")
        fields["last_index"] = _index(fields.get("last_index", "0"))
        return Start(call_id=self.call_id, **fields)


def _fields(query: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=2 * len(_RESUME))
    except ValueError:
        raise InvalidRequestError("the query cannot be read") from None
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name not in _RESUME:
            allowed = ", ".join(_RESUME)
            raise InvalidRequestError(f"the query has a parameter that is not one of {allowed}", param="query")
        if name in fields:
            raise InvalidRequestError(f"{name} is given twice", param=name)
        fields[name] = value
    return fields


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_INDEX):
        raise InvalidRequestError(f"last_index must be a whole number from 0 to {_MAX_INDEX}", param="last_index")
    return int(text)


def header(headers: Headers, name: str) -> str | None:
    """Return a header's value; None where it is missing.

    Raises:
        InvalidRequestError: It is there more than once.
    """
    try:
        return headers.get(name)
    except MultipleValuesError:
        raise InvalidRequestError(f"the header {name} is given twice", param=name) from None


def offered_subprotocols(headers: Headers) -> list[str]:
    """Return the subprotocols that a client offers, in its order."""
    lines = headers.get_all("Sec-WebSocket-Protocol")
    return [name.strip() for line in lines for name in line.split(",") if name.strip()]
