"""Spans: what OpenTelemetry is told, where it is installed and set up; nothing otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from ...errors import ConfigError
from ...events import FinishReason, Timings, Usage
from .ids import TraceIds

__all__ = ["RequestSpan", "Spans", "record_with", "set_up_tracing", "spans"]

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTERS: Final = ("otlp", "console", "none")
_MISSING: Final = 'spans need OpenTelemetry: pip install "pipecat-voice-llm[otel]"'


class RequestSpan:
    """One request's span; this one is not recorded."""

    def identify(self, *, tenant: str, call_id: str) -> None:
        """Note whose request it is; what is empty is not noted."""

    def turn(self, usage: Usage, timings: Timings, reason: FinishReason) -> None:
        """Note a turn that ends now."""

    def failed(self, code: str) -> None:
        """Note that the request failed."""


class Spans:
    """Makes spans; this one makes none that are recorded."""

    @contextmanager
    def request(self, name: str, ids: TraceIds) -> Iterator[tuple[TraceIds, RequestSpan]]:
        """Open a request's span; yields it and the ids that the request goes by."""
        yield ids, RequestSpan()

    def close(self) -> None:
        """Send what is left; may take some seconds."""


_spans = Spans()


def spans() -> Spans:
    """Return what makes spans in this process."""
    return _spans


def record_with(chosen: Spans) -> Callable[[], None]:
    """Let ``chosen`` make the spans of this process; returns a function that closes it and goes back."""
    global _spans
    before, _spans = _spans, chosen

    def undo() -> None:
        global _spans
        _spans = before
        chosen.close()

    return undo


def set_up_tracing(environ: Mapping[str, str]) -> Callable[[], None]:
    """Record spans where OpenTelemetry's variables ask for them; ``voice-llm serve`` calls this, nothing else does.

    Args:
        environ: ``OTEL_TRACES_EXPORTER`` (``otlp``, ``console`` or ``none``) or an OTLP endpoint turns spans on. The
            SDK reads the other variables by itself.

    Returns:
        A function that sends what is left and ends the recording.

    Raises:
        ConfigError: What is asked for is not known, or not installed.
    """
    exporter = _exporter(environ)
    if exporter == "none":
        return lambda: None
    try:
        from .otel import OtelSpans
    except ImportError as e:
        raise ConfigError(_MISSING, param="OTEL_TRACES_EXPORTER") from e
    return record_with(OtelSpans.exporting(exporter))


def _exporter(environ: Mapping[str, str]) -> str:
    endpoint = any(environ.get(name) for name in _ENDPOINTS)
    chosen = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or ("otlp" if endpoint else "none")
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "none"
    if chosen not in _EXPORTERS:
        allowed = ", ".join(_EXPORTERS)
        raise ConfigError(
            f"OTEL_TRACES_EXPORTER is {chosen!r}; allowed is one of {allowed}", param="OTEL_TRACES_EXPORTER"
        )
    name = next((name for name in _PROTOCOLS if environ.get(name)), None)
    if chosen == "otlp" and name is not None and environ[name] != "http/protobuf":
        raise ConfigError(f"{name} is {environ[name]!r}; allowed is 'http/protobuf'", param=name)
    return chosen
