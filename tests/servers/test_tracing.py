from __future__ import annotations

import asyncio
import contextvars
import gzip
import re
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from multidict import CIMultiDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from websockets.datastructures import Headers

from voice_llm.errors import AtCapacityError, ConfigError
from voice_llm.events import FinishReason, Timings, Usage
from voice_llm.servers.tracing import entered, set_up_tracing
from voice_llm.servers.tracing.otel import OtelSpans
from voice_llm.servers.tracing.spans import record_with, spans

pytestmark = pytest.mark.unit

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SECRET = "kredi kartim 4111"
TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]")


@pytest.fixture
def recorded() -> Iterator[InMemorySpanExporter]:
    """Spans go to memory, at a clock that stands at 100 s."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    undo = record_with(OtelSpans(provider, clock_ns=lambda: 100_000_000_000))
    yield exporter
    undo()


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """An OTLP collector's address, and what it was sent: path and body."""
    received: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_zipped = self.headers.get("Content-Encoding") == "gzip"
            received.append((self.path, gzip.decompress(body) if is_zipped else body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", received
        server.shutdown()
        thread.join()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


class TestIds:
    def test_traceparent_is_taken_over_and_passed_on_with_a_span_of_our_own(self) -> None:
        with entered({"traceparent": PARENT, "x-trace-id": "other", "x-span-id": "other"}) as trace:
            passed_on = trace.headers()
        assert passed_on["x-trace-id"] == TRACE
        assert passed_on["traceparent"] == f"00-{TRACE}-{passed_on['x-span-id']}-01"
        assert re.fullmatch("[0-9a-f]{16}", passed_on["x-span-id"])
        assert passed_on["x-span-id"] != SPAN

    def test_ids_of_the_existing_service_are_taken_over_as_they_are(self) -> None:
        with entered({"x-trace-id": "Call 17/b", "x-span-id": "s1"}) as trace:
            passed_on = trace.headers()
        assert (passed_on["x-trace-id"], passed_on["x-span-id"]) == ("Call 17/b", "s1")
        assert TRACEPARENT.fullmatch(passed_on["traceparent"])

    def test_one_trace_id_is_one_trace_whatever_its_form(self) -> None:
        def trace_of(given: str) -> str:
            with entered({"x-trace-id": given}) as trace:
                return trace.headers()["traceparent"][3:35]

        assert trace_of("call 17") == trace_of("call 17") != trace_of("call 18")
        assert trace_of(TRACE) == TRACE
        assert trace_of("4BF92F35-77B3-4DA6-A3CE-929D0E0E4736") == TRACE

    def test_request_without_ids_gets_new_ones(self) -> None:
        with entered({}) as first, entered({}) as second:
            pass
        assert TRACEPARENT.fullmatch(first.headers()["traceparent"])
        assert first.trace_id != second.trace_id
        assert first.span_id != second.span_id

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "garbage",
            f"ff-{TRACE}-{SPAN}-01",
            f"00-{TRACE.upper()}-{SPAN}-01",
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE}-{SPAN}-01-more",
            f"00-{TRACE}-{SPAN}-0g",
        ],
    )
    def test_traceparent_that_is_none_is_ignored(self, header: str) -> None:
        with entered({"traceparent": header, "x-trace-id": "t1"}) as trace:
            assert trace.trace_id == "t1"

    def test_traceparent_of_a_version_to_come_is_read_as_far_as_it_is_known(self) -> None:
        with entered({"traceparent": f"01-{TRACE}-{SPAN}-00-more"}) as trace:
            assert trace.trace_id == TRACE

    @pytest.mark.parametrize("given", ["", "x" * 129, "çağrı", "a\nb", "a\x00", " a", "a "])
    def test_id_that_no_header_should_carry_is_ignored(self, given: str) -> None:
        with entered({"x-trace-id": given, "x-span-id": given}) as trace:
            assert given not in (trace.trace_id, trace.span_id)
            assert all(value.isascii() and value.isprintable() for value in trace.headers().values())

    def test_headers_of_each_server_are_read(self) -> None:
        for headers in (CIMultiDict({"X-Trace-ID": "t1"}), Headers({"X-Trace-ID": "t1"}), {"x-trace-id": "t1"}):
            with entered(headers) as trace:
                assert trace.trace_id == "t1"

    def test_header_that_comes_twice_is_ignored(self) -> None:
        headers = Headers([("traceparent", PARENT), ("traceparent", PARENT), ("x-trace-id", "t1")])
        with entered(headers) as trace:
            assert trace.trace_id == "t1"


async def test_generator_that_another_context_closes_ends_quietly() -> None:
    async def answer() -> AsyncIterator[str]:
        with entered({}):
            yield "word"

    words = answer()
    await anext(words)

    async def close() -> None:
        await words.aclose()  # type: ignore[attr-defined]

    await asyncio.create_task(close(), context=contextvars.Context())


class TestSpans:
    def test_request_is_a_span_below_the_one_that_asked(self, recorded: InMemorySpanExporter) -> None:
        with entered({"traceparent": PARENT}, name="grpc Converse") as trace:
            trace.identify(tenant="acme", call_id="c1")
            passed_on = trace.headers()["traceparent"]
        (span,) = recorded.get_finished_spans()
        assert (span.name, span.kind, span.status.status_code) == ("grpc Converse", SpanKind.SERVER, StatusCode.UNSET)
        assert span.parent is not None
        assert (span.context.trace_id, span.parent.span_id) == (int(TRACE, 16), int(SPAN, 16))
        assert dict(span.attributes or {}) == {"voice_llm.tenant": "acme", "voice_llm.call_id": "c1"}
        assert passed_on == f"00-{TRACE}-{span.context.span_id:016x}-01"

    def test_new_trace_goes_by_the_id_of_its_span(self, recorded: InMemorySpanExporter) -> None:
        with entered({}) as trace:
            pass
        (span,) = recorded.get_finished_spans()
        assert span.parent is None
        assert (trace.trace_id, trace.span_id) == (f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}")

    def test_given_ids_stay_while_spans_are_recorded(self, recorded: InMemorySpanExporter) -> None:
        with entered({"x-trace-id": "call 17", "x-span-id": "s1"}) as trace:
            passed_on = trace.headers()
        (span,) = recorded.get_finished_spans()
        assert (passed_on["x-trace-id"], passed_on["x-span-id"]) == ("call 17", "s1")
        assert passed_on["traceparent"] == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"

    def test_trace_that_is_not_sampled_is_not_recorded(self, recorded: InMemorySpanExporter) -> None:
        with entered({"traceparent": f"00-{TRACE}-{SPAN}-00"}) as trace:
            assert trace.headers()["traceparent"].endswith("-00")
        assert recorded.get_finished_spans() == ()

    def test_turn_is_a_span_with_its_stages_where_they_were(self, recorded: InMemorySpanExporter) -> None:
        with entered({}) as trace:
            timings = Timings(queue_ms=10, prefill_ms=40, first_token_ms=50, first_chunk_ms=80, total_ms=1000)
            trace.turn(Usage(30, 20, 7), timings, FinishReason.STOP)
        found = by_name(recorded)
        turn = found["turn"]

        def interval_ms(span: ReadableSpan) -> tuple[float, float]:
            assert span.start_time is not None
            assert span.end_time is not None
            return (span.start_time / 1e6 - 99_000, span.end_time / 1e6 - 99_000)

        assert interval_ms(turn) == (0, 1000)
        assert interval_ms(found["queue"]) == (0, 10)
        assert interval_ms(found["prefill"]) == (10, 50)
        assert {e.name: e.timestamp / 1e6 - 99_000 for e in turn.events} == {"first_token": 50, "first_chunk": 80}
        assert [found[n].parent for n in ("queue", "prefill", "turn")] == [
            turn.context,
            turn.context,
            found["request"].context,
        ]
        assert dict(turn.attributes or {}) == {
            "gen_ai.usage.input_tokens": 30,
            "gen_ai.usage.output_tokens": 7,
            "gen_ai.response.finish_reasons": ("stop",),
            "voice_llm.cached_tokens": 20,
        }

    def test_turn_that_never_started_has_no_stages(self, recorded: InMemorySpanExporter) -> None:
        with entered({}) as trace:
            trace.turn(Usage(), Timings(total_ms=5), FinishReason.CANCELLED)
        assert set(by_name(recorded)) == {"request", "turn"}

    def test_failure_is_noted_by_code_and_never_by_its_text(self, recorded: InMemorySpanExporter) -> None:
        def fail(error: Exception, *noted: str) -> None:
            with entered({}) as trace:
                for code in noted:
                    trace.failed(code)
                raise error

        for error, noted in (
            (AtCapacityError(SECRET), ()),
            (ValueError(SECRET), ("too_large",)),
            (ValueError(SECRET), ()),
        ):
            with pytest.raises(type(error)):
                fail(error, *noted)
        failed = recorded.get_finished_spans()
        assert [(s.attributes or {})["error.type"] for s in failed] == ["at_capacity", "too_large", "internal"]
        assert {s.status.status_code for s in failed} == {StatusCode.ERROR}
        assert not any(SECRET in s.to_json() for s in failed)

    def test_without_set_up_nothing_is_recorded_and_nothing_fails(self) -> None:
        with entered({}, tenant="acme") as trace:
            trace.turn(Usage(), Timings(total_ms=5), FinishReason.STOP)
            trace.failed("internal")


class TestSetUp:
    @pytest.mark.parametrize(
        "environ",
        [{}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}],
    )
    def test_spans_are_off_unless_asked_for(self, environ: dict[str, str]) -> None:
        before = spans()
        set_up_tracing(environ)()
        assert spans() is before

    def test_console_exporter_writes_spans_to_standard_error(self, capfd: pytest.CaptureFixture[str]) -> None:
        end = set_up_tracing({"OTEL_TRACES_EXPORTER": "console"})
        with entered({}, name="http chat"):
            pass
        end()
        out, err = capfd.readouterr()
        assert '"name": "http chat"' in err
        assert '"service.name": "voice-llm"' in err
        assert out == ""

    def test_spans_reach_an_otlp_collector(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = spans()
        with collector() as (endpoint, received):
            environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": "front desk"}
            for name, value in environ.items():
                monkeypatch.setenv(name, value)
            end = set_up_tracing(environ)
            with entered({"traceparent": PARENT}, name="ws call"):
                pass
            end()
        assert spans() is before
        ((path, body),) = received
        (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
        (span,) = resource.scope_spans[0].spans
        assert path == "/v1/traces"
        assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "front desk"
        assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("ws call", TRACE, SPAN)

    @pytest.mark.parametrize(
        ("environ", "said"),
        [
            (
                {"OTEL_TRACES_EXPORTER": "zipkin"},
                "OTEL_TRACES_EXPORTER is 'zipkin'; allowed is one of otlp, console, none",
            ),
            (
                {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
                "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; allowed is 'http/protobuf'",
            ),
        ],
    )
    def test_what_is_not_known_is_refused_by_name(self, environ: dict[str, str], said: str) -> None:
        with pytest.raises(ConfigError) as refused:
            set_up_tracing(environ)
        assert str(refused.value) == said

    def test_missing_library_is_named_with_what_installs_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "voice_llm.servers.tracing.otel")
        monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
        for name in [name for name in sys.modules if name.startswith("opentelemetry.sdk.")]:
            monkeypatch.delitem(sys.modules, name)
        with pytest.raises(ConfigError, match=r"pip install .*voice-llm\[otel\]"):
            set_up_tracing({"OTEL_TRACES_EXPORTER": "otlp"})
