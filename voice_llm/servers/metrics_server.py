"""MetricsServer: GET /metrics for Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from ..errors import ConfigError
from .edge import Edge
from .http.wire_log import wire_logger
from .metrics import PrometheusObserver
from .metrics_reading import Readings, Scrape

__all__ = ["MetricsServer"]

# Far longer than any step, and shorter than a scrape may take.
_STATS_TIMEOUT_S: Final = 2.0
# Anybody who reaches the port may ask, and each answer takes time from the calls.
_REUSE_S: Final = 1.0
_IDLE_S: Final = 75.0
_OPENMETRICS: Final = "application/openmetrics-text"


class MetricsServer:
    """Serves what an observer has counted, and what the engine holds at that moment.

    Args:
        edge: What all servers share.
        observer: Has counted.
        stats_timeout_s: How long a scrape waits for the engine; one that does not answer counts as down.
        reuse_s: For how long scrapes are given the same text.
        idle_s: How long a connection may send no request, or not the whole of one.
        clock: Monotonic, in seconds.
    """

    def __init__(
        self,
        edge: Edge,
        observer: PrometheusObserver,
        *,
        stats_timeout_s: float = _STATS_TIMEOUT_S,
        reuse_s: float = _REUSE_S,
        idle_s: float = _IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._edge = edge
        self._registry = observer.registry
        self._readings = Readings(edge.host, timeout_s=stats_timeout_s)
        self._reuse_s = reuse_s
        self._idle_s = idle_s
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._scrape: Scrape | None = None
        self._scraped_s = 0.0
        self._texts: dict[str, bytes] = {}  # content type -> what was made of the scrape
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            ConfigError: The port cannot be had.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        self._runner = web.AppRunner(app, access_log=None, logger=wire_logger(), keepalive_timeout=self._idle_s)
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
        self._readings.close()
        if runner is not None:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        # One version of each format: as many texts as there are versions could be asked for otherwise.
        accepted = {kind.partition(";")[0].strip() for kind in request.headers.get("Accept", "").split(",")}
        encode, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in accepted else "")
        async with self._one_at_a_time:
            scrape = await self._recent_scrape()
            text = self._texts.get(content_type)
            if text is None:
                text = self._texts[content_type] = encode(scrape)
        response = web.Response(body=text, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def _recent_scrape(self) -> Scrape:
        if self._scrape is None or self._clock() - self._scraped_s >= self._reuse_s:
            self._scrape = Scrape(self._registry, await self._readings.look())
            self._scraped_s = self._clock()
            self._texts.clear()
        return self._scrape
