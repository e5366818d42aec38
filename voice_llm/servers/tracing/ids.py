"""TraceIds: the ids that a request brings, or is given, and the headers that pass them on."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

__all__ = ["TraceIds"]

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_HEX_TRACE: Final = re.compile(r"[0-9a-f]{32}")
_HEX_SPAN: Final = re.compile(r"[0-9a-f]{16}")
_GIVEN_ID: Final = re.compile(r"[!-~](?:[ -~]{0,126}[!-~])?")


@dataclass(frozen=True, slots=True)
class TraceIds:
    """The ids of one request.

    Attributes:
        trace_id: Of all that happens for one cause; as given, or 32 hexadecimal digits.
        own_span_id: Of this request in it, 16 hexadecimal digits.
        parent_span_id: The span that asked, 16 hexadecimal digits; None where nobody did.
        given_span_id: What ``x-span-id`` was, which clients of the existing service look for; else None.
        sampled: Whether the trace is recorded; None where nobody has said.
    """

    trace_id: str
    own_span_id: str
    parent_span_id: str | None = None
    given_span_id: str | None = None
    sampled: bool | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Take over the ids of ``traceparent``, else of ``x-trace-id`` and ``x-span-id``, else make new ones.

        What is not an id is ignored: a trace is no reason to refuse a request.
        """
        parent = _parent(_get(headers, "traceparent"))
        if parent is not None:
            trace_id, parent_span_id, flags = parent
            return cls(trace_id, secrets.token_hex(8), parent_span_id, sampled=bool(flags & 1))
        given_trace, given_span = (_given(_get(headers, name)) for name in ("x-trace-id", "x-span-id"))
        asking = None if given_trace is None else _as_hex(given_span or given_trace, _HEX_SPAN, 16)
        return cls(given_trace or secrets.token_hex(16), secrets.token_hex(8), asking, given_span)

    @property
    def span_id(self) -> str:
        """Id of this request in the trace, as ``x-span-id`` had it, else its own."""
        return self.given_span_id or self.own_span_id

    @property
    def hex_trace_id(self) -> str:
        """The trace id in W3C's form; one that was given in another form always has the same."""
        return _as_hex(self.trace_id.replace("-", "").lower(), _HEX_TRACE, 32)

    def headers(self) -> dict[str, str]:
        """Return the headers, or metadata, that pass the ids on."""
        return {
            "traceparent": f"00-{self.hex_trace_id}-{self.own_span_id}-{int(bool(self.sampled)):02x}",
            "x-trace-id": self.trace_id,
            "x-span-id": self.span_id,
        }


def _get(headers: Mapping[str, str], name: str) -> str | None:
    try:
        return headers[name]
    except LookupError:  # missing, or there more than once
        return None


def _parent(value: str | None) -> tuple[str, str, int] | None:
    """Read ``traceparent`` as W3C Trace Context asks for it."""
    match = _TRACEPARENT.fullmatch(value.strip()) if value is not None else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return trace_id, span_id, int(flags, 16)


def _given(value: str | None) -> str | None:
    return value if value is not None and _GIVEN_ID.fullmatch(value) else None


def _as_hex(value: str, form: re.Pattern[str], digits: int) -> str:
    if form.fullmatch(value) and value.strip("0"):
        return value
    return sha256(value.encode()).hexdigest()[:digits]
