"""Streams and connections that end early, stall, or drip."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import aiohttp
import openai
import pytest

from tests.runtime.helpers import GatedBackend, idle
from tests.servers.helpers import any_ports, edge_around
from voice_llm.errors import BackendError, ConfigError
from voice_llm.events import FinishReason
from voice_llm.servers.http import HttpServer
from voice_llm.testing import FakeBackend

from .helpers import Seen, Served, on, said, serving

pytestmark = pytest.mark.unit

LONG = "Once upon a time. " * 40


async def until_one_has_ended(seen: Seen) -> None:
    while not seen.ended:
        await asyncio.sleep(0.005)


def noting_cancels(served: Served, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """An event that is set once the engine has been asked to cancel something."""
    asked, cancel = asyncio.Event(), served.engine._cancel

    def noted(request: Any, reason: FinishReason) -> None:
        cancel(request, reason)
        asked.set()

    monkeypatch.setattr(served.engine, "_cancel", noted)
    return asked


def request_bytes(body: dict[str, Any], *, length: int | None = None, header: str = "") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{header}"
    return f"{head}Content-Length: {length or len(data)}\r\n\r\n".encode() + data


@pytest.mark.parametrize("call_id", [None, "call-1"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_disconnects_stops_its_generation_at_the_next_step(
    stream: bool, call_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, seen = GatedBackend(reply=lambda _: LONG), Seen()
    async with serving(backend, observer=seen) as served:
        cancelled = noting_cancels(served, monkeypatch)
        backend.hold(after_tokens=5)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        header = f"x-call-id: {call_id}\r\n" if call_id else ""
        writer.write(request_bytes(said("Tell me a story.", stream=stream), header=header))
        await backend.held()
        before = backend.counters.sampled_tokens
        if stream:
            assert b"200 OK" in await reader.readline()
        writer.close()
        await cancelled.wait()
        backend.release()
        await until_one_has_ended(seen)
        await idle(served.engine)
        assert backend.counters.sampled_tokens <= before + 1
        assert served.edge.host.lent == 0
        assert seen.ended == [("http", "cancelled")]
        assert (await served.ask(said("Hi.", max_tokens=3), **({"x_call_id": call_id} if call_id else {})))[0] == 200


async def test_a_failure_in_the_middle_of_a_stream_is_told_and_the_stream_is_not_called_done() -> None:
    backend, seen = GatedBackend(reply=lambda _: LONG), Seen()
    async with serving(backend, observer=seen) as served:
        backend.hold(after_tokens=30)
        async with served.http.post(served.url("/v1/chat/completions"), json=said("?", stream=True)) as response:
            await backend.held()
            backend.fail_next(BackendError("the GPU at 0xdeadbeef fell off"))
            backend.release()
            lines = [line for line in (await response.text()).split("\n\n") if line]
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")
    last = json.loads(lines[-1].removeprefix("data: "))
    assert last["error"]["code"] == "internal"
    assert "0xdeadbeef" not in lines[-1]
    assert len(lines) > 2
    assert "data: [DONE]" not in lines
    assert seen.ended == [("http", "internal")]


async def test_the_openai_client_raises_what_a_stream_breaks_off_with() -> None:
    backend = GatedBackend(reply=lambda _: LONG)
    async with serving(backend) as served:
        backend.hold(after_tokens=30)
        stream = await served.openai.chat.completions.create(
            model="test", stream=True, messages=[{"role": "user", "content": "?"}]
        )
        await backend.held()
        backend.fail_next(BackendError("gone"))
        backend.release()
        with pytest.raises(openai.APIError, match="the engine failed"):
            async for _ in stream:
                pass


async def test_a_body_that_drips_holds_nothing_and_is_not_waited_for_for_ever() -> None:
    async with edge_around() as edge, on(edge, body_s=0.3) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request_bytes(said("Hi."), length=1000, header="Expect: 100-continue\r\n"))
        assert b"100 Continue" in await reader.readline()
        assert served.edge.host.lent == 0
        assert (await served.engine.stats()).held_sequences == 0
        assert (await served.ask(said("Hi.")))[0] == 200
        answer = await reader.readuntil(b"did not arrive")
        assert b"400 Bad Request" in answer
        writer.close()


async def test_a_client_that_does_not_read_its_stream_is_left_and_its_generation_stopped() -> None:
    async def unread(served: Served) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", served.port))
            body = said("?", stream=True, max_tokens=4096)
            await loop.sock_sendall(client, request_bytes(body))
            await until_one_has_ended(seen)

    seen = Seen()
    backend = FakeBackend(reply=lambda _: "Once upon a time. " * 2000, context_per_call=8192)
    async with edge_around(backend, observer=seen) as edge, on(edge, unread_s=0.1) as served:
        keep_little_unread(served)
        await asyncio.wait_for(unread(served), 60)
        await idle(served.engine)
        assert seen.ended == [("http", "slow_consumer")]
        assert served.edge.host.lent == 0


def keep_little_unread(served: Served) -> None:
    """Let the kernel hold little of what the server sends, so that a reader who stops is noticed within one reply."""
    runner = served.server._runner
    assert runner is not None
    for site in runner.sites:
        server = site._server
        assert isinstance(server, asyncio.Server)
        for listening in server.sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


async def test_a_server_that_stops_lets_replies_end_within_the_grace() -> None:
    backend = GatedBackend(reply=lambda _: LONG)
    async with serving(backend) as served:
        backend.hold(after_tokens=5)
        asking = asyncio.ensure_future(served.ask(said("?", max_tokens=30)))
        await backend.held()
        stopping = asyncio.ensure_future(served.server.stop(grace_s=30))
        await asyncio.sleep(0)
        backend.release()
        assert (await asking)[0] == 200
        await stopping
        await served.server.stop()


async def test_a_server_that_stops_cuts_what_does_not_end_within_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = GatedBackend(reply=lambda _: LONG)
    async with serving(backend) as served:
        cancelled = noting_cancels(served, monkeypatch)
        backend.hold(after_tokens=5)
        asking = asyncio.ensure_future(served.ask(said("?", max_tokens=300)))
        await backend.held()
        stopping = asyncio.ensure_future(served.server.stop(grace_s=0.01))
        await cancelled.wait()
        backend.release()
        await stopping
        with pytest.raises(aiohttp.ClientError):
            await asking
        await idle(served.engine)
        assert served.edge.host.lent == 0
        assert backend.counters.sampled_tokens < 50


async def test_a_port_that_is_taken_is_named() -> None:
    async with serving() as served, edge_around(config=any_ports(http_port=served.port)) as other:
        server = HttpServer(other)
        with pytest.raises(ConfigError, match=str(served.port)) as caught:
            await server.start()
        assert caught.value.param == "http_port"
        await server.stop()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"my secret\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nmy secret\r\n\r\n",
        b"GET /my%20secret" + b"x" * 20_000 + b" HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: deflate\r\nContent-Length: 9\r\n\r\nmy secret",
    ],
)
async def test_garbage_harms_nobody_and_is_not_logged(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(garbage)
        writer.write_eof()
        answer = await reader.read()
        assert b"Traceback" not in answer
        assert answer == b"" or b" 400 " in answer.splitlines()[0]
        writer.close()
        assert (await served.ask(said("Hi.")))[0] == 200
    assert "secret" not in caplog.text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
