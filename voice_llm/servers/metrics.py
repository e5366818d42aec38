"""PrometheusObserver: what happens in the engine and at its edges, as Prometheus metrics.

Labels come from fixed sets only: no tenant, no call and no text is ever one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from ..events import FinishReason, Timings, Usage
from ..observer import Observer
from .status import STATUSES

__all__ = ["PrometheusObserver"]

# A caller hears the difference between any two of these, up to where nobody waits any longer.
_SPEECH_S: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_STEP_S: Final = (0.001, 0.002, *_SPEECH_S)
# A request may be a question, or a phone call.
_REQUEST_S: Final = (*_SPEECH_S, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

_OTHER: Final = "other"
_INTERNAL: Final = "internal"
_INTERFACES: Final = ("http", "grpc", "ws")
_KINDS: Final = ("decode", "prefill", _OTHER)
_NO_ERRORS: Final = ("ok", "cancelled")
_SOURCES: Final = ("request", "turn", "event")


class PrometheusObserver(Observer):
    """Counts what it is told, in a registry of its own; a token or a step costs it some microseconds.

    Attributes:
        registry: Holds the metrics.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._make_step_metrics()
        self._make_turn_metrics()
        self._make_call_metrics()
        self._make_request_metrics()

    def step(self, kind: str, rows: int, took_s: float) -> None:
        """See ``Observer``."""
        took, tokens = self._steps.get(kind) or self._steps[_OTHER]
        took.observe(took_s)
        tokens.inc(rows)

    def token(self, gap_s: float) -> None:
        """See ``Observer``."""
        self._inter_token.observe(gap_s)

    def turn_ended(self, reason: FinishReason, usage: Usage, timings: Timings) -> None:
        """See ``Observer``."""
        self._turns.labels(reason).inc()
        self._prompt_tokens.inc(usage.prompt_tokens)
        self._cached_tokens.inc(usage.cached_tokens)
        self._completion_tokens.inc(usage.completion_tokens)
        self._llm_tokens.inc(usage.completion_tokens)
        for histogram, took_ms in (
            (self._queue, timings.queue_ms),
            (self._prefill, timings.prefill_ms),
            (self._first_token, timings.first_token_ms),
            (self._first_chunk, timings.first_chunk_ms),
        ):
            if took_ms is not None:
                histogram.observe(took_ms / 1e3)

    def turn_failed(self, code: str) -> None:
        """See ``Observer``."""
        self._turns.labels(FinishReason.ERROR).inc()
        self._errors.labels("turn", _known(code, STATUSES, _INTERNAL)).inc()

    def event_refused(self, code: str) -> None:
        """See ``Observer``."""
        self._errors.labels("event", _known(code, STATUSES, _INTERNAL)).inc()

    def prefilled(self, usage: Usage, took_s: float) -> None:
        """See ``Observer``."""
        self._early_prefill.observe(took_s)

    def cancelled(self, latency_s: float) -> None:
        """See ``Observer``."""
        self._cancel.observe(latency_s)

    def barge_in(self) -> None:
        """See ``Observer``."""
        self._barge_ins.inc()

    def speculation_discarded(self) -> None:
        """See ``Observer``."""
        self._discarded.inc()

    def call_refused(self, code: str) -> None:
        """See ``Observer``."""
        self._refused.labels(_known(code, STATUSES, _INTERNAL)).inc()

    def request_ended(self, interface: str, code: str, took_s: float) -> None:
        """See ``Observer``."""
        interface = _known(interface, _INTERFACES, _OTHER)
        code = _known(code, (*_NO_ERRORS, *STATUSES), _INTERNAL)
        self._requests.labels(interface, code).inc()
        self._request_took.labels(interface, code).observe(took_s)
        if code not in _NO_ERRORS:
            self._errors.labels("request", code).inc()
        self._llm_requests.inc()
        self._llm_latency.observe(took_s)

    def _make_step_metrics(self) -> None:
        took = self._histogram(
            "step", "Time of an engine's step, planning and sampling included.", ("kind",), buckets_s=_STEP_S
        )
        tokens = self._counter("step_tokens", "Tokens that the engine's steps decoded.", ("kind",))
        self._steps = {kind: (took.labels(kind), tokens.labels(kind)) for kind in _KINDS}
        self._inter_token = self._histogram("inter_token", "Time between two tokens of a reply.", buckets_s=_STEP_S)
        self._cancel = self._histogram(
            "cancel_latency", "Time from the wish to cancel to the end of the work.", buckets_s=_STEP_S
        )

    def _make_turn_metrics(self) -> None:
        self._queue = self._histogram("queue", "Time from a turn's arrival to its first piece of work.")
        self._prefill = self._histogram("prefill", "Time from a turn's first piece of work to its first token.")
        self._early_prefill = self._histogram("early_prefill", "Time of prefills ahead of their turn.")
        self._first_token = self._histogram("time_to_first_token", "Time from a turn's arrival to its first token.")
        self._first_chunk = self._histogram(
            "time_to_first_chunk", "Time from a turn's arrival to the first words that a voice can speak."
        )
        self._turns = self._counter("turns", "Turns that ended.", ("finish_reason",))
        for reason in FinishReason:
            self._turns.labels(reason)
        self._prompt_tokens = self._counter("prompt_tokens", "Tokens of the turns' prompts.")
        self._cached_tokens = self._counter("cached_tokens", "Those prompt tokens that were in the cache.")
        self._completion_tokens = self._counter("completion_tokens", "Tokens drawn for replies.")
        self._llm_tokens = Counter("llm_tokens_generated", "Tokens drawn for replies.", registry=self.registry)

    def _make_call_metrics(self) -> None:
        self._barge_ins = self._counter("barge_ins", "Replies that a caller spoke over.")
        self._discarded = self._counter("speculations_discarded", "Speculative turns withdrawn or superseded.")
        self._refused = self._counter("calls_refused", "Calls that were not admitted.", ("code",))
        self._errors = self._counter("errors", "Errors of turns, and of requests as a whole.", ("source", "code"))
        for code in STATUSES:
            self._refused.labels(code)
            for source in _SOURCES:
                self._errors.labels(source, code)

    def _make_request_metrics(self) -> None:
        labels = ("interface", "code")
        self._requests = self._counter("requests", "Requests that ended; a phone call is one.", labels)
        self._request_took = self._histogram(
            "request_duration", "Time of a request; a phone call is one.", labels, buckets_s=_REQUEST_S
        )
        self._llm_requests = Counter("llm_requests", "Requests that ended.", registry=self.registry)
        self._llm_latency = Histogram(
            "llm_request_latency_seconds", "Time of a request.", registry=self.registry, buckets=_REQUEST_S
        )

    def _counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"voice_llm_{name}", meaning, labels, registry=self.registry)

    def _histogram(
        self, name: str, meaning: str, labels: Sequence[str] = (), *, buckets_s: Sequence[float] = _SPEECH_S
    ) -> Histogram:
        return Histogram(f"voice_llm_{name}_seconds", meaning, labels, registry=self.registry, buckets=buckets_s)


def _known(value: str, allowed: Collection[str], otherwise: str) -> str:
    """Keep a label's values to those that are known, whatever is passed in."""
    return value if value in allowed else otherwise
