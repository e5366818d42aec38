"""MetricsServer: GET /metrics for Prometheus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ..errors import ConfigError, VoiceLLMError
from ..runtime import EngineStats
from .edge import Edge
from .host import HostState
from .metrics import PrometheusObserver

__all__ = ["MetricsServer"]

logger = logging.getLogger(__name__)

# Far longer than any step, and shorter than a scrape may take.
_STATS_TIMEOUT_S: Final = 2.0


class MetricsServer:
    """Serves what an observer has counted, and what the engine holds at that moment.

    Args:
        edge: What all servers share.
        observer: Has counted.
        stats_timeout_s: How long a scrape waits for the engine; one that does not answer counts as down.
    """

    def __init__(self, edge: Edge, observer: PrometheusObserver, *, stats_timeout_s: float = _STATS_TIMEOUT_S) -> None:
        self._edge = edge
        self._observer = observer
        self._stats_timeout_s = stats_timeout_s
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            ConfigError: The port cannot be had.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._scrape)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        host, port = self._edge.config.host, self._edge.config.metrics_port
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as e:
            await self.stop()
            raise ConfigError(f"metrics_port {port} on {host} cannot be had: {e.strerror}", param="metrics_port") from e
        return int(self._runner.addresses[0][1])

    async def stop(self, grace_s: float = 0.0) -> None:
        """Close the listener and its connections; idempotent. A scrape is too short to wait for."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _scrape(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = encode(_Scrape(self._observer.registry, await self._look()))
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def _look(self) -> _Reading:
        host = self._edge.host
        reading = _Reading(host.state)
        if host.engine is None or host.state in (HostState.FAILED, HostState.CLOSED):
            return reading
        health = host.engine.health()
        reading = _Reading(host.state, calls=health.open_calls, max_calls=health.max_calls)
        if not health.healthy:
            return reading
        try:
            async with asyncio.timeout(self._stats_timeout_s):
                stats = await host.engine.stats()
        except (VoiceLLMError, TimeoutError) as e:
            logger.warning("the engine did not answer a scrape: %s", type(e).__name__)
            return reading
        return _Reading(host.state, health.open_calls, health.max_calls, stats)


@dataclass(frozen=True, slots=True)
class _Reading:
    """The engine at the moment of a scrape; None where it did not say."""

    state: HostState
    calls: int | None = None
    max_calls: int | None = None
    stats: EngineStats | None = None

    def gauges(self) -> Iterator[tuple[str, str, float | None]]:
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
        yield "llm_active_contexts", "KV sequences that calls hold.", stats.held_sequences

    def counters(self) -> Iterator[tuple[str, str, float]]:
        if self.stats is None:
            return
        done = self.stats.batcher
        yield "voice_llm_failed_steps", "Steps that the backend refused or failed.", done.failed_steps
        yield "voice_llm_calls_parked", "Times that a call was moved to host memory.", done.parked
        yield "voice_llm_restored_tokens", "Tokens that came back from host memory.", done.restored_tokens


class _Scrape(Collector):
    """All metrics of one scrape."""

    def __init__(self, registry: CollectorRegistry, reading: _Reading) -> None:
        self._registry = registry
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        for name, meaning, value in self._reading.gauges():
            if value is not None:
                yield GaugeMetricFamily(name, meaning, value=float(value))
        for name, meaning, total in self._reading.counters():
            yield CounterMetricFamily(name, meaning, value=float(total))
        yield from self._registry.collect()
