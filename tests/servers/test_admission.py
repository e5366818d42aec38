"""Admission by forecast, as the callers of a server and its operators see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.runtime.helpers import profile, read_text, user
from tests.servers.helpers import any_ports
from tests.servers.test_error_table import TABLE, Converse, WebSocket
from tests.servers.test_metrics import scrape, scraped
from voice_llm.config.engine import AdmissionRule, EngineConfig
from voice_llm.runtime import Call, Engine
from voice_llm.servers.edge import Edge
from voice_llm.servers.host import EngineHost
from voice_llm.servers.metrics import PrometheusObserver
from voice_llm.testing import FakeBackend, VirtualClock

pytestmark = pytest.mark.unit

PATIENCE_S = 60.0
QUESTION = "I have a question about my policy, poliçem ne zaman bitiyor? " * 3


async def never_pause(call: Call, turns: int) -> None:
    """A caller who asks again and again: all the time of the machine, more than half a second a turn."""
    said: list[str] = []
    for _ in range(turns):
        said.append(QUESTION)
        said.append(await read_text(call.generate(user(*said), max_tokens=24)))


@asynccontextmanager
async def busy_edge(rule: AdmissionRule) -> AsyncIterator[Edge]:
    """An edge whose engine has one call that keeps it busy, on virtual time."""
    clock = VirtualClock()
    backend = FakeBackend(sequences=4, context_per_call=8192, clock=clock)
    chosen = profile(engine=EngineConfig(admission=rule))

    async def load() -> Engine:
        return await Engine.start(backend, chosen, clock=clock)

    host = EngineHost(load, profile_name=chosen.name)
    host.start()
    engine = await host.wait_ready()
    edge = Edge.around(host, any_ports())
    try:
        async with engine.open_call() as call:
            await never_pause(call, 24)
            yield edge
    finally:
        await edge.close()
        await host.close()


@pytest.mark.parametrize("interface", [Converse, WebSocket])
async def test_call_that_is_one_too_many_hears_when_to_come_back(interface: type[Converse] | type[WebSocket]) -> None:
    async with busy_edge("forecast") as edge, asyncio.timeout(PATIENCE_S):
        client = interface(edge)
        port = await client.server.start()
        try:
            async with client.calling(port, {"call_id": "one-too-many"}, {}) as call:
                refusal = await client.refusal(call)
        finally:
            await client.server.stop()
    assert (refusal.code, refusal.status) == ("at_capacity", TABLE["at_capacity"][client.expected])
    assert "with one more call" in refusal.message
    assert refusal.retry_after_s >= 1


async def test_plain_limit_takes_it() -> None:
    async with busy_edge("limit") as edge, asyncio.timeout(PATIENCE_S):
        client = WebSocket(edge)
        port = await client.server.start()
        try:
            async with client.calling(port, {"call_id": "one-more"}, {}) as call:
                await client.ready(call)
        finally:
            await client.server.stop()


async def test_forecast_and_refusals_are_metrics() -> None:
    async with (
        busy_edge("forecast") as edge,
        scraped(edge, PrometheusObserver()) as url,
        asyncio.timeout(PATIENCE_S),
    ):
        engine = edge.host.require()
        before = await scrape(url)
        with pytest.raises(Exception, match="with one more call"):
            await engine.open_call()
        after = await scrape(url)
        forecast = (await engine.stats()).forecast
    assert forecast is not None
    assert after["voice_llm_forecast_utilisation"] == forecast.utilisation > 1
    assert after["voice_llm_forecast_first_words_seconds"] == forecast.first_words_s > 0.5
    assert before['voice_llm_engine_refusals_total{reason="forecast"}'] == 0
    assert after['voice_llm_engine_refusals_total{reason="forecast"}'] == 1
    assert after['voice_llm_engine_refusals_total{reason="limit"}'] == 0
