"""Trace: one request's place in a trace, for its log lines, its reply's headers and its span."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from ...events import FinishReason, Timings, Usage
from .ids import TraceIds
from .spans import RequestSpan, spans

__all__ = ["Trace", "current_trace", "entered"]

_current: ContextVar[Trace | None] = ContextVar("voice_llm_trace", default=None)


class Trace:
    """One request's place in a trace.

    Attributes:
        ids: Its ids.
        tenant: Whose request it is; empty until that is known.
        call_id: The call it belongs to; empty where there is none, or until that is known.
    """

    def __init__(self, ids: TraceIds, span: RequestSpan, *, tenant: str = "", call_id: str = "") -> None:
        self.ids = ids
        self.tenant = ""
        self.call_id = ""
        self._span = span
        self.identify(tenant=tenant, call_id=call_id)

    @property
    def trace_id(self) -> str:
        """Id of the trace, as it was given or made."""
        return self.ids.trace_id

    @property
    def span_id(self) -> str:
        """Id of this request in the trace."""
        return self.ids.span_id

    def identify(self, *, tenant: str = "", call_id: str = "") -> None:
        """Say whose request it is, once that is known; what is empty stays as it is."""
        self.tenant = tenant or self.tenant
        self.call_id = call_id or self.call_id
        self._span.identify(tenant=tenant, call_id=call_id)

    def headers(self) -> dict[str, str]:
        """Return ``traceparent``, ``x-trace-id`` and ``x-span-id`` for the reply; all are printable ASCII."""
        return self.ids.headers()

    def turn(self, usage: Usage, timings: Timings, reason: FinishReason) -> None:
        """Note a turn that ends now, with where its time went."""
        self._span.turn(usage, timings, reason)

    def failed(self, code: str) -> None:
        """Note that the request failed, with the code of its error."""
        self._span.failed(code)


def current_trace() -> Trace | None:
    """Return the trace of the request that this task works for."""
    return _current.get()


@contextmanager
def entered(
    headers: Mapping[str, str], *, tenant: str = "", call_id: str = "", name: str = "request"
) -> Iterator[Trace]:
    """Work for a request: its ids stand in log lines from here on, also in those of tasks that are started here.

    Args:
        headers: Of the request, or metadata; names in lower case, or a mapping that does not mind.
        tenant: Whose request it is, where that is known already; else ``Trace.identify`` says it.
        call_id: The call it belongs to.
        name: What the span is called, such as ``"grpc Converse"``; never made of what a client sent.

    Yields:
        The request's place in the trace.
    """
    with spans().request(name, TraceIds.of(headers)) as (ids, span):
        trace = Trace(ids, span, tenant=tenant, call_id=call_id)
        token = _current.set(trace)
        try:
            yield trace
        finally:
            # An asynchronous generator may be closed by a task other than the one that read it.
            with suppress(ValueError):
                _current.reset(token)
