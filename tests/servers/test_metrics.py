from __future__ import annotations

import asyncio
import gzip
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import pytest
from prometheus_client import Histogram, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.runtime.helpers import GatedBackend, finished_of, profile, read, user
from tests.servers.helpers import any_ports, edge_around
from voice_llm.errors import BackendError, ConfigError, VoiceLLMError
from voice_llm.events import Finished, FinishReason, Timings, Usage
from voice_llm.runtime import Engine, EngineStats
from voice_llm.servers.edge import Edge
from voice_llm.servers.host import EngineHost
from voice_llm.servers.metrics import PrometheusObserver
from voice_llm.servers.metrics_server import MetricsServer
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"
Samples = dict[str, float]
"""``name{label="value",...}`` -> value."""


@asynccontextmanager
async def scraped(
    edge: Edge, observer: PrometheusObserver, *, stats_timeout_s: float = 20.0, reuse_s: float = 0.0
) -> AsyncIterator[str]:
    """The address of a metrics server, which by default looks anew for each scrape."""
    server = MetricsServer(edge, observer, stats_timeout_s=stats_timeout_s, reuse_s=reuse_s)
    port = await server.start()
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        await server.stop()


async def get(url: str, **headers: str) -> tuple[str, str]:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        assert response.status == 200
        return await response.text(), response.headers["Content-Type"]


def samples_of(text: str) -> Samples:
    found: Samples = {}
    for family in read_text(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def scrape(url: str) -> Samples:
    return samples_of((await get(url))[0])


def told(observer: PrometheusObserver) -> Samples:
    return samples_of(generate_latest(observer.registry).decode())


async def converse(engine: Engine, *questions: str, tenant: str = "default") -> list[Finished]:
    """One call; the caller asks one question after the other."""
    said: list[str] = []
    ends = []
    async with engine.open_call(tenant=tenant) as call:
        for question in questions:
            said.append(question)
            events = await read(call.generate(user(*said), max_tokens=64))
            ends.append(finished_of(events))
            said.append("".join(getattr(event, "text", "") for event in events if type(event).__name__ == "TextDelta"))
    return ends


class TestScrape:
    async def test_counts_are_those_of_what_was_done(self) -> None:
        observer = PrometheusObserver()
        async with edge_around(observer=observer) as edge, scraped(edge, observer) as url:
            engine = edge.host.require()
            talks = await asyncio.gather(
                converse(engine, "Hello?", "And then?", "Bye."), converse(engine, "Merhaba, kaç lira?", "Sağ ol.")
            )
            found = await scrape(url)
            stats = await engine.stats()
        ends = [end for talk in talks for end in talk]
        usage = sum((end.usage for end in ends), Usage())
        assert found['voice_llm_turns_total{finish_reason="stop"}'] == len(ends) == 5
        assert found["voice_llm_prompt_tokens_total"] == usage.prompt_tokens > 0
        assert found["voice_llm_cached_tokens_total"] == usage.cached_tokens > 0
        assert found["voice_llm_completion_tokens_total"] == usage.completion_tokens > 5
        assert found["llm_tokens_generated_total"] == usage.completion_tokens
        assert found["voice_llm_inter_token_seconds_count"] == usage.completion_tokens - len(ends)
        assert found['voice_llm_step_seconds_count{kind="decode"}'] == stats.batcher.decode_steps
        assert found['voice_llm_step_tokens_total{kind="decode"}'] == stats.batcher.decode_rows
        assert found['voice_llm_step_tokens_total{kind="prefill"}'] == stats.batcher.prefill_tokens

    async def test_busy_time_is_told_by_what_it_went_into(self) -> None:
        observer = PrometheusObserver()
        async with edge_around(observer=observer) as edge, scraped(edge, observer) as url:
            engine = edge.host.require()
            await asyncio.gather(converse(engine, "Hello?", "And then?"), converse(engine, "Merhaba?", "Sağ ol."))
            found = await scrape(url)
            stats = await engine.stats()
        done = stats.batcher
        busy_s = {
            name.split('"')[1]: value
            for name, value in found.items()
            if name.startswith("voice_llm_busy_seconds_total{work=")
        }
        assert set(busy_s) == {"opening", "turn", "hint", "decode", "sampling", "planning", "copies"}
        assert busy_s["decode"] == pytest.approx(done.decode_ms / 1e3)
        assert busy_s["opening"] > 0
        assert busy_s["turn"] > 0
        assert busy_s["hint"] == 0
        assert busy_s["opening"] + busy_s["turn"] == pytest.approx(done.prefill_ms / 1e3)
        assert sum(busy_s.values()) == pytest.approx(done.step_ms / 1e3)
        assert found["voice_llm_decode_steps_total"] == done.decode_steps > 0
        assert found["voice_llm_decode_rows_total"] == done.decode_rows >= done.decode_steps
        assert found["voice_llm_micro_batches_total"] == done.decode_micro_batches > 0

    async def test_error_of_the_cost_model_is_shown_for_decode_and_prefill(self) -> None:
        observer = PrometheusObserver()
        async with edge_around(observer=observer) as edge, scraped(edge, observer) as url:
            engine = edge.host.require()
            await converse(engine, "Hello?", "And then?")
            found = await scrape(url)
            stats = await engine.stats()
        assert found['voice_llm_cost_model_error{kind="decode"}'] == stats.decode_error > 0
        assert found['voice_llm_cost_model_error{kind="prefill"}'] == stats.prefill_error > 0

    async def test_sums_are_those_of_the_timings(self) -> None:
        observer = PrometheusObserver()
        async with edge_around(observer=observer) as edge, scraped(edge, observer) as url:
            ends = await converse(edge.host.require(), "Hello?", "And then?")
            found = await scrape(url)
        for name, field in (
            ("queue", "queue_ms"),
            ("prefill", "prefill_ms"),
            ("time_to_first_token", "first_token_ms"),
            ("time_to_first_chunk", "first_chunk_ms"),
        ):
            assert found[f"voice_llm_{name}_seconds_count"] == 2
            expected_ms = sum(getattr(end.timings, field) for end in ends)
            assert found[f"voice_llm_{name}_seconds_sum"] == pytest.approx(expected_ms / 1e3)

    async def test_gauges_show_what_is_held_at_that_moment(self) -> None:
        observer = PrometheusObserver()
        async with edge_around(observer=observer) as edge, scraped(edge, observer) as url:
            before = await scrape(url)
            async with edge.host.require().open_call() as call:
                end = finished_of(await read(call.generate(user("Hello?"), max_tokens=64)))
                during = await scrape(url)
            after = await scrape(url)
        assert (before["voice_llm_calls"], before["voice_llm_sequences_held"], before["voice_llm_kv_tokens"]) == (
            0,
            0,
            0,
        )
        assert (during["voice_llm_calls"], during["voice_llm_sequences_held"], during["llm_active_contexts"]) == (
            1,
            1,
            1,
        )
        assert during["voice_llm_kv_tokens"] >= end.usage.prompt_tokens
        assert (after["voice_llm_calls"], after["voice_llm_sequences_held"], after["voice_llm_kv_tokens"]) == (0, 0, 0)
        assert before["voice_llm_sequences"] == 4
        assert before["voice_llm_max_calls"] == 4
        assert before["voice_llm_parked_bytes"] == 0
        assert (before["voice_llm_up"], before["voice_llm_ready"], before["voice_llm_loading"]) == (1, 1, 0)

    async def test_saved_prefix_counts_in_bytes(self) -> None:
        observer = PrometheusObserver()
        served = profile(system_prompt="You are a patient voice on the phone. " * 8)
        async with edge_around(observer=observer, served=served) as edge, scraped(edge, observer) as url:
            found = await scrape(url)
        assert found["voice_llm_prefix_bytes"] > 0
        assert found["voice_llm_early_prefill_seconds_count"] == 1

    async def test_neither_words_nor_names_of_callers_are_shown(self) -> None:
        observer = PrometheusObserver()
        async with edge_around(observer=observer) as edge, scraped(edge, observer) as url:
            await converse(edge.host.require(), "zebraçizgi", tenant="acmebank")
            observer.turn_failed("zebraçizgi")
            observer.request_ended("zebraçizgi", "acmebank", 0.1)
            text, _ = await get(url)
        assert "zebra" not in text
        assert "acmebank" not in text

    async def test_openmetrics_is_sent_to_those_who_ask_for_it(self) -> None:
        observer = PrometheusObserver()
        async with edge_around(observer=observer) as edge, scraped(edge, observer) as url:
            plain, plain_type = await get(url)
            text, content_type = await get(url, Accept=OPENMETRICS)
        assert plain_type.startswith("text/plain; version=0.0.4")
        assert content_type.startswith(OPENMETRICS)
        assert text.endswith("# EOF\n")
        families = {family.name: family.type for family in read_openmetrics(text)}
        assert families["voice_llm_turns"] == "counter"
        assert families["voice_llm_queue_seconds"] == "histogram"
        assert set(families) >= {family.name for family in read_text(plain) if not family.name.endswith("_created")}

    @pytest.mark.parametrize("version", ["0.0.1", "1.0.0", "7.7", "abc", "1.0.0; escaping=dots", "1.0.0; q=0.5"])
    async def test_version_that_is_asked_for_changes_nothing(self, version: str) -> None:
        observer = PrometheusObserver()
        async with edge_around(observer=observer) as edge, scraped(edge, observer) as url:
            text, content_type = await get(url, Accept=f"application/openmetrics-text; version={version}")
        assert content_type == f"{OPENMETRICS}; charset=utf-8"
        assert text.endswith("# EOF\n")

    async def test_reply_is_compressed_for_those_who_can_read_it(self) -> None:
        observer = PrometheusObserver()
        async with (
            edge_around(observer=observer) as edge,
            scraped(edge, observer) as url,
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.get(url, headers={"Accept-Encoding": "gzip"}) as response,
        ):
            assert response.headers["Content-Encoding"] == "gzip"
            assert "voice_llm_up 1.0" in gzip.decompress(await response.read()).decode()

    async def test_other_paths_and_methods_are_not_there(self) -> None:
        observer = PrometheusObserver()
        async with (
            edge_around(observer=observer) as edge,
            scraped(edge, observer) as url,
            aiohttp.ClientSession() as session,
        ):
            async with session.get(url.replace("/metrics", "/")) as response:
                assert response.status == 404
            async with session.post(url) as response:
                assert response.status == 405


class TestEngineThatDoesNotAnswer:
    async def test_scrape_is_answered_while_the_model_is_loaded(self) -> None:
        observer = PrometheusObserver()
        loaded = asyncio.Event()

        async def load() -> Engine:
            await loaded.wait()
            return await Engine.start(FakeBackend(), profile())

        host = EngineHost(load, profile_name="test")
        host.start()
        edge = Edge.around(host, any_ports())
        async with scraped(edge, observer) as url:
            loading = await scrape(url)
            loaded.set()
            await host.wait_ready()
            ready = await scrape(url)
            await host.drain(0)
            draining = await scrape(url)
            await edge.close()
            await host.close()
            closed = await scrape(url)
        states = [
            [found[f"voice_llm_{name}"] for name in ("up", "loading", "ready", "draining")]
            for found in (loading, ready, draining, closed)
        ]
        assert states == [[0, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]]
        assert "voice_llm_sequences" not in loading

    async def test_stalled_step_does_not_hold_the_scrape_up(self) -> None:
        observer = PrometheusObserver()
        backend = GatedBackend()
        async with (
            edge_around(backend, observer=observer) as edge,
            scraped(edge, observer, stats_timeout_s=0.05) as stalled_url,
            scraped(edge, observer) as url,
            edge.host.require().open_call() as call,
        ):
            backend.hold(after_tokens=3)
            talking = asyncio.create_task(read(call.generate(user("Hello?"), max_tokens=64)))
            await backend.held()
            stalled = await scrape(stalled_url)
            backend.release()
            await talking
            recovered = await scrape(url)
        assert stalled["voice_llm_up"] == 0
        assert stalled["voice_llm_calls"] == 1
        assert "voice_llm_kv_tokens" not in stalled
        assert stalled["voice_llm_inter_token_seconds_count"] == 2
        assert recovered["voice_llm_up"] == 1
        assert recovered["voice_llm_kv_tokens"] > 0

    async def test_failed_turn_is_counted_with_its_code(self) -> None:
        observer = PrometheusObserver()
        backend = FakeBackend()
        async with edge_around(backend, observer=observer) as edge, scraped(edge, observer) as url:
            async with edge.host.require().open_call() as call:
                for _ in range(2):  # a step is tried once more
                    backend.fail_next(BackendError("no luck"))
                with pytest.raises(VoiceLLMError):
                    await read(call.generate(user("Hello?"), max_tokens=64))
            found = await scrape(url)
        assert found['voice_llm_turns_total{finish_reason="error"}'] == 1
        assert found['voice_llm_errors_total{code="internal",source="turn"}'] == 1
        assert found["voice_llm_failed_steps_total"] >= 1

    async def test_cancel_is_counted_with_how_long_it_took(self) -> None:
        observer = PrometheusObserver()
        backend = GatedBackend()
        async with edge_around(backend, observer=observer) as edge, scraped(edge, observer) as url:
            async with edge.host.require().open_call() as call:
                backend.hold(after_tokens=3)
                stream = call.generate(user("Hello?"), max_tokens=64)
                await anext(stream)
                stream.cancel(FinishReason.INTERRUPTED)
                backend.release()
                await read(stream)
            found = await scrape(url)
        assert found["voice_llm_cancel_latency_seconds_count"] == 1
        assert found['voice_llm_turns_total{finish_reason="interrupted"}'] == 1


class TestManyScrapes:
    @staticmethod
    def looks_at(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[None]:
        """One item for each time that the engine is asked how it stands."""
        looks: list[None] = []
        stats = engine.stats

        async def noted() -> EngineStats:
            looks.append(None)
            return await stats()

        monkeypatch.setattr(engine, "stats", noted)
        return looks

    async def test_scrapes_soon_after_another_are_the_same_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        observer = PrometheusObserver()
        async with edge_around(observer=observer) as edge, scraped(edge, observer, reuse_s=3600) as url:
            looks = self.looks_at(edge.host.require(), monkeypatch)
            first, _ = await get(url)
            observer.barge_in()
            again, _ = await get(url)
            openmetrics, content_type = await get(url, Accept=OPENMETRICS)
            assert len(looks) == 1
        assert again == first
        assert content_type.startswith(OPENMETRICS)
        assert openmetrics.endswith("# EOF\n")

    async def test_scrapes_later_than_that_are_new(self, monkeypatch: pytest.MonkeyPatch) -> None:
        observer = PrometheusObserver()
        now_s = 100.0
        async with edge_around(observer=observer) as edge:
            looks = self.looks_at(edge.host.require(), monkeypatch)
            server = MetricsServer(edge, observer, clock=lambda: now_s)
            url = f"http://127.0.0.1:{await server.start()}/metrics"
            try:
                first = await scrape(url)
                observer.barge_in()
                now_s += 0.9
                soon = await scrape(url)
                now_s += 0.2
                later = await scrape(url)
            finally:
                await server.stop()
            assert len(looks) == 2
        assert [found["voice_llm_barge_ins_total"] for found in (first, soon, later)] == [0, 0, 1]

    async def test_an_engine_that_does_not_answer_is_not_asked_again_until_it_has(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        observer, answer = PrometheusObserver(), asyncio.Event()
        async with edge_around(observer=observer) as edge, scraped(edge, observer, stats_timeout_s=0.02) as url:
            engine = edge.host.require()
            stats, looks = engine.stats, list[None]()

            async def slow() -> EngineStats:
                looks.append(None)
                await answer.wait()
                return await stats()

            monkeypatch.setattr(engine, "stats", slow)
            stalled = [await scrape(url) for _ in range(3)]
            asked = len(looks)
            answer.set()
            async with asyncio.timeout(60):
                while not (await scrape(url))["voice_llm_up"]:
                    pass
        assert asked == 1
        assert [found["voice_llm_up"] for found in stalled] == [0] * 3
        assert [found["voice_llm_max_calls"] for found in stalled] == [4] * 3

    async def test_scrapes_at_the_same_time_share_one_look(self, monkeypatch: pytest.MonkeyPatch) -> None:
        observer = PrometheusObserver()
        async with edge_around(observer=observer) as edge, scraped(edge, observer, reuse_s=3600) as url:
            looks = self.looks_at(edge.host.require(), monkeypatch)
            texts = {text for text, _ in await asyncio.gather(*(get(url) for _ in range(8)))}
            assert (len(looks), len(texts)) == (1, 1)


class TestServer:
    async def test_taken_port_is_refused_by_name(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            async with edge_around(config=any_ports(metrics_port=port)) as edge:
                with pytest.raises(ConfigError, match=f"metrics_port {port} on 127.0.0.1 cannot be had") as refused:
                    await MetricsServer(edge, PrometheusObserver()).start()
        assert refused.value.param == "metrics_port"

    @pytest.mark.parametrize("sent", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"])
    async def test_connection_that_sends_no_whole_request_is_closed(self, sent: bytes) -> None:
        async with edge_around() as edge:
            server = MetricsServer(edge, PrometheusObserver(), idle_s=0.05)
            reader, writer = await asyncio.open_connection("127.0.0.1", await server.start())
            try:
                writer.write(sent)
                async with asyncio.timeout(60):
                    assert (await reader.read()).startswith(b"HTTP/1.1 200" if b"Host" in sent else b"")
            finally:
                writer.close()
                await server.stop()

    async def test_garbage_is_not_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        observer = PrometheusObserver()
        async with edge_around(observer=observer) as edge, scraped(edge, observer) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))
            writer.write(b"GET /metrics HTTP/1.1\r\nmy secret\r\n\r\n")
            assert b" 400 " in await reader.readline()
            writer.close()
            assert (await scrape(url))["voice_llm_up"] == 1
        assert "secret" not in caplog.text
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    async def test_stop_frees_the_port_and_may_come_twice(self) -> None:
        async with edge_around() as edge:
            server = MetricsServer(edge, PrometheusObserver())
            port = await server.start()
            await server.stop()
            await server.stop()
            with socket.create_server(("127.0.0.1", port)):
                pass


class TestObserver:
    def test_requests_are_counted_by_interface_and_code_and_under_the_existing_names(self) -> None:
        observer = PrometheusObserver()
        for interface, code in (("http", "ok"), ("grpc", "at_capacity"), ("ws", "cancelled")):
            observer.request_ended(interface, code, 0.25)
        found = told(observer)
        assert found['voice_llm_requests_total{code="at_capacity",interface="grpc"}'] == 1
        assert found['voice_llm_request_duration_seconds_sum{code="ok",interface="http"}'] == 0.25
        assert found["llm_requests_total"] == found["llm_request_latency_seconds_count"] == 3
        assert found["llm_request_latency_seconds_sum"] == 0.75
        errors = {name: n for name, n in found.items() if name.startswith("voice_llm_errors_total") and n}
        assert errors == {'voice_llm_errors_total{code="at_capacity",source="request"}': 1}

    def test_barge_ins_discarded_speculation_and_refused_calls_are_counted(self) -> None:
        observer = PrometheusObserver()
        observer.barge_in()
        observer.speculation_discarded()
        observer.speculation_discarded()
        observer.call_refused("at_capacity")
        found = told(observer)
        assert found["voice_llm_barge_ins_total"] == 1
        assert found["voice_llm_speculations_discarded_total"] == 2
        assert found['voice_llm_calls_refused_total{code="at_capacity"}'] == 1
        assert found['voice_llm_calls_refused_total{code="draining"}'] == 0

    def test_stage_that_a_turn_never_reached_is_not_counted(self) -> None:
        observer = PrometheusObserver()
        observer.turn_ended(FinishReason.CANCELLED, Usage(), Timings(queue_ms=5, total_ms=9))
        found = told(observer)
        assert found["voice_llm_queue_seconds_count"] == 1
        assert found["voice_llm_prefill_seconds_count"] == found["voice_llm_time_to_first_token_seconds_count"] == 0

    def test_whatever_is_passed_in_labels_stay_few(self) -> None:
        observer = PrometheusObserver()
        observer.request_ended("pigeon", "internal", 0.1)
        before = set(told(observer))
        for i in range(50):
            observer.turn_failed(f"e{i}")
            observer.call_refused(f"e{i}")
            observer.request_ended(f"i{i}", f"e{i}", 0.1)
            observer.step(f"k{i}", 1, 0.1)
        found = told(observer)
        assert set(found) == before
        assert found['voice_llm_errors_total{code="internal",source="turn"}'] == 50
        assert found['voice_llm_requests_total{code="internal",interface="other"}'] == 51
        assert found['voice_llm_step_seconds_count{kind="other"}'] == 50

    @pytest.mark.parametrize("name", ["queue", "time_to_first_token", "time_to_first_chunk", "inter_token", "step"])
    def test_buckets_reach_from_5_ms_to_10_s(self, name: str) -> None:
        observer = PrometheusObserver()
        observer.step("decode", 1, 0.1)
        bounds = {
            float(match[1])
            for sample in told(observer)
            if (match := re.fullmatch(rf'voice_llm_{name}_seconds_bucket{{.*le="(.*)"}}', sample))
        }
        assert {0.005, 0.01, 0.05, 0.1, 0.5, 1, 10} <= bounds
        assert sorted(bounds)[-2] == 10

    def test_two_observers_share_nothing(self) -> None:
        first, second = PrometheusObserver(), PrometheusObserver()
        first.barge_in()
        assert told(second)["voice_llm_barge_ins_total"] == 0

    def test_counting_a_token_costs_little_more_than_the_library_itself_takes(self) -> None:
        """A token and its step go into two histograms and a counter: it is told some hundred times a second."""
        observer, bare = (
            PrometheusObserver(),
            Histogram("bare", "As many buckets.", buckets=range(1, 21), registry=None),
        )

        def ours() -> None:
            observer.token(10)
            observer.step("decode", 1, 10)

        def the_librarys() -> None:
            for _ in range(3):
                bare.observe(10)

        assert least_s(ours) < 4 * least_s(the_librarys)


def least_s(work: Callable[[], None]) -> float:
    """The least processor time of several tries at doing it 500 times."""
    costs_s = []
    for _ in range(9):
        began_s = time.thread_time()
        for _ in range(500):
            work()
        costs_s.append(time.thread_time() - began_s)
    return min(costs_s)


async def test_names_follow_the_rules_of_prometheus() -> None:
    """Units are base units and stand last, counters end with ``_total``, and each metric says what it is."""
    observer = PrometheusObserver()
    async with edge_around(observer=observer) as edge, scraped(edge, observer) as url:
        text, _ = await get(url)
    families = [family for family in read_text(text) if not family.name.startswith("process_")]
    assert len(families) > 25
    for family in families:
        assert re.fullmatch("(voice_llm|llm)_[a-z_]+", family.name), family.name
        assert family.documentation.endswith(".")
        assert not re.search("_(ms|milliseconds|kb|mb|count|sum|bucket)$", family.name), family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)
        if family.type == "gauge":
            assert not family.name.endswith("_total")
    names = [family.name for family in families]
    assert len(names) == len(set(names))
