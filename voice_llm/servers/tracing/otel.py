"""OtelSpans: requests and turns as OpenTelemetry spans: ids and numbers, no text of a call or of an error."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ...errors import VoiceLLMError
from ...events import FinishReason, Timings, Usage
from .ids import TraceIds
from .spans import RequestSpan, Spans

__all__ = ["OtelSpans"]

_NS_PER_MS: Final = 1_000_000


class OtelSpans(Spans):
    """Records spans with a provider, which it then owns.

    Args:
        provider: Where spans go.
        clock_ns: Nanoseconds since 1970, as spans count.
    """

    def __init__(self, provider: TracerProvider, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("voice_llm.servers")
        self._clock_ns = clock_ns

    @classmethod
    def exporting(cls, exporter: str) -> OtelSpans:
        """Export in the background, to OTLP over HTTP or, for ``"console"``, to the standard error output."""
        provider = TracerProvider(resource=_resource())
        provider.add_span_processor(BatchSpanProcessor(_exporter(exporter)))
        return cls(provider)

    @contextmanager
    def request(self, name: str, ids: TraceIds) -> Iterator[tuple[TraceIds, RequestSpan]]:
        """See ``Spans``."""
        span = self._tracer.start_span(name, context=_parent_of(ids), kind=SpanKind.SERVER)
        own = span.get_span_context()
        ids = dataclasses.replace(
            ids,
            trace_id=ids.trace_id if ids.parent_span_id is not None else f"{own.trace_id:032x}",
            own_span_id=f"{own.span_id:016x}",
            sampled=own.trace_flags.sampled,
        )
        recorded = _Recorded(span, self._tracer, self._clock_ns)
        try:
            yield ids, recorded
        except Exception as e:
            recorded.failed(e.code if isinstance(e, VoiceLLMError) else "internal")
            raise
        finally:
            span.end(self._clock_ns())

    def close(self) -> None:
        """See ``Spans``."""
        self._provider.shutdown()


class _Recorded(RequestSpan):
    def __init__(self, span: Span, tracer: trace.Tracer, clock_ns: Callable[[], int]) -> None:
        self._span = span
        self._tracer = tracer
        self._clock_ns = clock_ns
        self._has_failed = False

    def identify(self, *, tenant: str, call_id: str) -> None:
        for key, value in (("voice_llm.tenant", tenant), ("voice_llm.call_id", call_id)):
            if value:
                self._span.set_attribute(key, value)

    def turn(self, usage: Usage, timings: Timings, reason: FinishReason) -> None:
        """Note a turn as a span of its own, with its stages below: all is known only at its end."""
        end_ns = self._clock_ns()
        start_ns = end_ns - _as_ns(timings.total_ms or 0.0)
        turn = self._below(self._span, "turn", start_ns)
        turn.set_attributes(
            {
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
                "gen_ai.response.finish_reasons": [str(reason)],
                "voice_llm.cached_tokens": usage.cached_tokens,
            }
        )
        queued_ms = timings.queue_ms
        if queued_ms is not None:
            queue_end_ns = start_ns + _as_ns(queued_ms)
            self._below(turn, "queue", start_ns).end(queue_end_ns)
            if timings.prefill_ms is not None:
                self._below(turn, "prefill", queue_end_ns).end(queue_end_ns + _as_ns(timings.prefill_ms))
        for name, at_ms in (("first_token", timings.first_token_ms), ("first_chunk", timings.first_chunk_ms)):
            if at_ms is not None:
                turn.add_event(name, timestamp=start_ns + _as_ns(at_ms))
        turn.end(end_ns)

    def failed(self, code: str) -> None:
        if self._has_failed:  # what comes after is how the failure made its way out
            return
        self._has_failed = True
        self._span.set_attribute("error.type", code)
        self._span.set_status(Status(StatusCode.ERROR))

    def _below(self, span: Span, name: str, start_ns: int) -> Span:
        return self._tracer.start_span(name, context=trace.set_span_in_context(span), start_time=start_ns)


def _parent_of(ids: TraceIds) -> Context | None:
    """Return the asking span; a trace id that came without a word on sampling is recorded."""
    if ids.parent_span_id is None:
        return Context()  # no span that happens to be current
    flags = TraceFlags.DEFAULT if ids.sampled is False else TraceFlags.SAMPLED
    asking = SpanContext(
        int(ids.hex_trace_id, 16), int(ids.parent_span_id, 16), is_remote=True, trace_flags=TraceFlags(flags)
    )
    return trace.set_span_in_context(NonRecordingSpan(asking), Context())


def _resource() -> Resource:
    """Return what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, under our name where they do not name it."""
    said = Resource.create()
    if str(said.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return said.merge(Resource({SERVICE_NAME: "voice-llm"}))
    return said


def _exporter(name: str) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter(out=sys.stderr)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _as_ns(ms: float) -> int:
    return round(ms * _NS_PER_MS)
