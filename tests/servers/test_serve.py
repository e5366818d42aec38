"""``voice-llm serve`` as a process of its own, on the packaged model."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import grpc
import pytest

from benchmarks.hostile import crowd
from benchmarks.server_process import ServerProcess
from benchmarks.serving import abort_figures, killed_client_figures, serving
from voice_llm._proto import call_pb2 as pb
from voice_llm._proto import call_pb2_grpc

pytestmark = pytest.mark.model

SMALL = ("--calls", "4", "--context-per-call", "1024", "--threads", "1")


async def test_it_listens_at_once_and_is_healthy_when_the_model_is_ready(tmp_path: Path) -> None:
    with ServerProcess([*SMALL, "--no-supervise"], tmp_path / "log") as server:
        while (answer := await asyncio.to_thread(server.health))[0] == 0:
            assert server.process.poll() is None, server.log.read_text()
            await asyncio.sleep(0.01)
        assert (answer[0], answer[1]["status"], answer[1]["model_ready"]) == (503, "loading", False)
        await server.healthy()
        status, body = server.health()
        assert (status, body["status"], body["model_ready"]) == (200, "healthy", True)
        assert body["current_profile"] == "smollm2_135m_demo"
        assert body["capacity"] == {"active": 0, "total": 4, "available": 4}


async def test_sigterm_lets_a_call_end_takes_no_new_one_and_exits_with_0(tmp_path: Path) -> None:
    with ServerProcess([*SMALL], tmp_path / "log") as server:
        await server.healthy()
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            stub = call_pb2_grpc.CallServiceStub(channel)
            stream = stub.Converse()
            start = pb.Start(params=pb.Params(max_tokens=40, temperature=0))
            await stream.write(pb.ClientEvent(start=start))
            assert (await stream.read()).WhichOneof("event") == "ready"
            await stream.write(pb.ClientEvent(turn=pb.Turn(turn_id="a", text="Who are you?")))
            assert (await stream.read()).WhichOneof("event") == "chunk"
            server.process.send_signal(signal.SIGTERM)
            while (await asyncio.to_thread(server.health))[1].get("status") != "draining":
                await asyncio.sleep(0.01)
            late = stub.Converse()
            await late.write(pb.ClientEvent(start=pb.Start()))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await late.read()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            while (event := await stream.read()).WhichOneof("event") == "chunk":
                pass
            assert event.turn_end.finish_reason in ("stop", "length")
            await stream.write(pb.ClientEvent(end=pb.End(reason="hangup")))
            assert (await stream.read()).WhichOneof("event") == "ended"
        assert await asyncio.to_thread(server.process.wait, 60) == 0


def test_sigterm_while_the_model_is_loaded_ends_it_at_once(tmp_path: Path) -> None:
    with ServerProcess([*SMALL], tmp_path / "log") as server:
        while server.health()[1].get("status") != "loading":
            assert server.process.poll() is None, server.log.read_text()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert "ready after" not in server.log.read_text()


async def test_an_idle_call_does_not_hold_up_the_end_for_longer_than_drain_s(tmp_path: Path) -> None:
    with ServerProcess([*SMALL, "--drain-s", "0.5"], tmp_path / "log") as server:
        await server.healthy()
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            stream = call_pb2_grpc.CallServiceStub(channel).Converse()
            await stream.write(pb.ClientEvent(start=pb.Start()))
            assert (await stream.read()).WhichOneof("event") == "ready"
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.process.wait, 60) == 0


def test_a_model_that_cannot_be_loaded_ends_it_with_a_word_and_no_second_try(tmp_path: Path) -> None:
    with ServerProcess([*SMALL, "--model", str(tmp_path / "none.gguf")], tmp_path / "log") as server:
        assert server.process.wait(60) == 1
        assert server.log.read_text().count("none.gguf") >= 1
        assert "started again" not in server.log.read_text()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with ServerProcess([*SMALL], tmp_path / "log") as server:
        server.wait_healthy()
        port = server.grpc.rpartition(":")[2]
        with ServerProcess([*SMALL, "--grpc-port", port], tmp_path / "other") as second:
            assert second.process.wait(60) == 2
            assert port in second.log.read_text()


def test_logs_are_json_lines(tmp_path: Path) -> None:
    with ServerProcess([*SMALL], tmp_path / "log") as server:
        server.wait_healthy()
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert any("ready" in line["message"] for line in lines)
    assert lines[-1]["message"] == "stopped"


async def test_an_abort_is_seen_as_unavailable_and_survived() -> None:
    with serving(*SMALL) as server:
        figures = await abort_figures(server)
    assert (figures["running_call"], figures["new_call"], figures["after"]) == ("UNAVAILABLE", "UNAVAILABLE", "OK")
    assert figures["other_process"]


async def test_a_client_killed_during_its_prefill_frees_its_sequence_before_the_prefill_is_done() -> None:
    with serving("--calls", "2", "--context-per-call", "4096", "--threads", "1") as server:
        await server.healthy()
        figures = await killed_client_figures(server)
    assert figures["cancels"] == 1
    assert figures["held_sequences"] == 0
    assert figures["prefilled_tokens"] < 2000


async def test_forty_hostile_connections_cost_a_healthy_call_nothing() -> None:
    figures = await crowd(40, 6.0, warm_up_s=0.5)
    assert figures["lost"] == []
    assert figures["unhealthy_answers"] == []
    assert figures["healthy_turns"] > 0
    assert figures["held_sequences"] == 0
    assert figures["server_alive"]
    assert figures["memory_after_mib"] < figures["memory_before_mib"] + 200
