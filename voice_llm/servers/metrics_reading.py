"""Readings: how the engine stands at the moment of a scrape."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ..engine import BatcherCounters
from ..errors import VoiceLLMError
from ..runtime import Engine, EngineStats
from .host import EngineHost, HostState

__all__ = ["Reading", "Readings", "Scrape"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """The engine at the moment of a scrape; None where it did not say."""

    state: HostState
    calls: int | None = None
    max_calls: int | None = None
    stats: EngineStats | None = None

    def gauges(self) -> Iterator[tuple[str, str, float | None]]:
        """Yield name, meaning and value of what goes up and down."""
        yield "voice_llm_up", "Whether the engine is loaded and answers.", self.stats is not None
        for state in (HostState.LOADING, HostState.READY, HostState.DRAINING):
            yield f"voice_llm_{state.value}", f"Whether the engine is {state.value}.", self.state is state
        yield "voice_llm_calls", "Calls that are open.", self.calls
        yield "voice_llm_max_calls", "Most calls that may be open.", self.max_calls
        stats = self.stats
        if stats is None:
            return
        yield "voice_llm_sequences", "KV sequences that there are.", stats.sequences
        yield "voice_llm_sequences_held", "KV sequences that calls hold.", stats.held_sequences
        yield "voice_llm_kv_tokens", "KV cells in use: tokens in the sequences that calls hold.", stats.kv_tokens
        yield "voice_llm_parked_bytes", "Host memory of parked calls.", stats.parked_bytes
        yield "voice_llm_prefix_bytes", "Host memory of saved prefixes.", stats.prefix_bytes
        if stats.forecast is not None:
            yield (
                "voice_llm_forecast_utilisation",
                "Share of the time that the machine would have work with one more call.",
                stats.forecast.utilisation,
            )
            yield (
                "voice_llm_forecast_first_words_seconds",
                "Mean time to a turn's first words with one more call.",
                stats.forecast.first_words_s,
            )
        yield "llm_active_contexts", "KV sequences that calls hold.", stats.held_sequences

    def counters(self) -> Iterator[tuple[str, str, float]]:
        """Yield name, meaning and value of what only goes up."""
        if self.stats is None:
            return
        done = self.stats.batcher
        yield "voice_llm_failed_steps", "Steps that the backend refused or failed.", done.failed_steps
        yield "voice_llm_calls_parked", "Times that a call was moved to host memory.", done.parked
        yield "voice_llm_restored_tokens", "Tokens that came back from host memory.", done.restored_tokens
        yield "voice_llm_decode_steps", "Steps of single tokens of talking calls.", done.decode_steps
        yield "voice_llm_decode_rows", "Rows of those steps.", done.decode_rows
        yield "voice_llm_micro_batches", "Micro-batches that those steps were made of.", done.decode_micro_batches

    def labelled(self) -> Iterator[Metric]:
        """Yield what has several values: where the time went, how far off the cost model is, and who was refused."""
        if self.stats is None:
            return
        busy = CounterMetricFamily(
            "voice_llm_busy_seconds", "Time of the engine's steps, by what it went into.", labels=("work",)
        )
        for work, ms in _busy_ms(self.stats.batcher).items():
            busy.add_metric((work,), ms / 1e3)
        yield busy
        error = GaugeMetricFamily(
            "voice_llm_cost_model_error", "Moving mean of |predicted - real| / real of step times.", labels=("kind",)
        )
        for kind, value in (("decode", self.stats.decode_error), ("prefill", self.stats.prefill_error)):
            error.add_metric((kind,), value)
        yield error
        refused = CounterMetricFamily(
            "voice_llm_engine_refusals", "Calls, and turns of soft ones, that the engine refused.", labels=("reason",)
        )
        refused.add_metric(("limit",), self.stats.batcher.refused_by_limit)
        refused.add_metric(("forecast",), self.stats.batcher.refused_by_forecast)
        yield refused


def _busy_ms(done: BatcherCounters) -> dict[str, float]:
    return {
        **{str(kind): work.ms for kind, work in done.prompts.items()},
        "decode": done.decode_ms,
        "sampling": done.sample_ms,
        "planning": done.planning_ms,
        "copies": done.copies_ms,
    }


class Readings:
    """Asks the engine how it stands, once at a time: one that does not answer is not asked again meanwhile.

    Args:
        host: Has the engine.
        timeout_s: How long to wait for an answer; an engine that gives none counts as down.
    """

    def __init__(self, host: EngineHost, *, timeout_s: float) -> None:
        self._host = host
        self._timeout_s = timeout_s
        self._asking: asyncio.Task[EngineStats | None] | None = None

    async def look(self) -> Reading:
        """Return how the engine stands now."""
        host = self._host
        if host.engine is None or host.state in (HostState.FAILED, HostState.CLOSED):
            return Reading(host.state)
        health = host.engine.health()
        stats = await self._stats(host.engine) if health.healthy else None
        return Reading(host.state, health.open_calls, health.max_calls, stats)

    def close(self) -> None:
        """Wait no longer for the engine."""
        if self._asking is not None:
            self._asking.cancel()

    async def _stats(self, engine: Engine) -> EngineStats | None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(_ask(engine))
        await asyncio.wait({self._asking}, timeout=self._timeout_s)
        if not self._asking.done():
            logger.warning("the engine did not answer a scrape in %g s", self._timeout_s)
            return None
        return self._asking.result()


async def _ask(engine: Engine) -> EngineStats | None:
    try:
        return await engine.stats()
    except VoiceLLMError as e:
        logger.warning("the engine did not answer a scrape: %s", type(e).__name__)
        return None


class Scrape(Collector):
    """All metrics of one scrape: what was counted, and a reading of the engine."""

    def __init__(self, registry: CollectorRegistry, reading: Reading) -> None:
        self._registry = registry
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        for name, meaning, value in self._reading.gauges():
            if value is not None:
                yield GaugeMetricFamily(name, meaning, value=float(value))
        for name, meaning, total in self._reading.counters():
            yield CounterMetricFamily(name, meaning, value=float(total))
        yield from self._reading.labelled()
        yield from self._registry.collect()
