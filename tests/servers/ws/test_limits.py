"""What one client can cost, and what is noted of a connection however it ends."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from typing import Any

import pytest

from tests.servers.helpers import any_ports, edge_around
from tests.servers.ws.helpers import Requests, Served, serving
from voice_llm.servers.conversations import Conversations
from voice_llm.servers.strict_json import parse_json
from voice_llm.servers.tracing import current_trace
from voice_llm.servers.ws import WsServer

pytestmark = pytest.mark.unit


class Calls(logging.Handler):
    """Notes the call id that stands in the trace of each log line."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        trace = current_trace()
        self.ids.add(trace.call_id if trace else "")


async def test_client_that_starts_no_call_is_sent_away() -> None:
    requests = Requests()
    async with edge_around(config=any_ports(), observer=requests) as edge:
        hasty = dataclasses.replace(edge, conversations=Conversations(edge.host, edge.config, start_within_s=0.02))
        server = WsServer(hasty)
        served = Served(hasty, server, await server.start(), requests)
        try:
            async with served.client() as client:
                error, close = await client.refused()
        finally:
            await server.stop()
    assert (error["code"], close.code) == ("invalid_request", 4400)
    assert requests.ended == [("ws", "invalid_request")]


@pytest.mark.parametrize(("chars", "inline"), [(10, True), (200_000, False)])
async def test_large_message_is_read_off_the_event_loop(
    chars: int, *, inline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[int] = []

    def noted(text: str) -> Any:
        readers.append(threading.get_ident())
        return parse_json(text)

    async with serving() as served, served.call() as client:
        monkeypatch.setattr("voice_llm.servers.ws.incoming.parse_json", noted)
        await client.send("context", rag_context="ğ" * chars)
        await client.send("confirm", turn_id="t9")
        assert (await client.expect("error"))["code"] == "wrong_state"
    assert (readers[0] == threading.get_ident()) is inline


async def test_history_longer_than_the_server_takes_is_refused_before_it_is_read() -> None:
    async with serving(max_messages=3) as served:
        async with served.client() as client:
            await client.send("start", history=[{"role": "user", "content": "Alo"}] * 3)
            await client.expect("ready")
        async with served.client("c2") as client:
            await client.send("start", history=[7] * 4)
            error, close = await client.refused()
        assert (error["code"], close.code) == ("invalid_request", 4400)
        assert "history has 4" in error["message"]


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1e999}', '"\\ud800"', "[" * 70 + "]" * 70, "5"])
async def test_message_that_is_no_strict_json_is_refused_and_the_call_goes_on(text: str) -> None:
    async with serving() as served, served.call() as client:
        await client.connection.send(text)
        assert (await client.expect("error"))["code"] == "invalid_request"
        await client.turn("Alo")


@pytest.mark.parametrize("name", ["a%0Ab", "%1B[2J", "x" * 129])
async def test_call_id_that_is_no_name_is_refused_and_gets_into_no_log_line(name: str) -> None:
    calls = Calls()
    logger = logging.getLogger("voice_llm")
    logger.addHandler(calls)
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        async with serving() as served, served.client(name) as client:
            error, close = await client.refused()
    finally:
        logger.removeHandler(calls)
        logger.setLevel(before)
    assert (error["code"], close.code) == ("invalid_request", 4400)
    assert calls.ids == {""}
    assert served.requests.ended == [("ws", "invalid_request")]


async def test_failure_outside_the_call_is_logged_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise LookupError("secret detail")

    monkeypatch.setattr(WsServer, "_refuse", broken)
    async with serving() as served, served.client() as client:
        await client.connection.send(json.dumps({"type": "start", "profile": "x"}))
        assert (await client.closed()).code == 1011
    assert served.requests.ended == [("ws", "internal")]
    assert any(r.exc_info and r.exc_info[0] is LookupError for r in caplog.records)
