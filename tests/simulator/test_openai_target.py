"""A server over HTTP as a target: a stand-in on loopback streams, breaks off, refuses and talks nonsense."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from voice_llm.errors import AtCapacityError, ConfigError, InvalidRequestError
from voice_llm.events import Usage
from voice_llm.simulator import CallerTurn, CallScript, OpenAITarget, TargetError, run_calls

pytestmark = pytest.mark.unit

SCRIPT = CallScript(turns=(CallerTurn("Merhaba"),), system_prompt="Kısa konuş.", rag_context="Poliçe NH 1.")
MESSAGES = [{"role": "system", "content": "Kısa konuş."}, {"role": "user", "content": "Merhaba"}]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class StandIn:
    """What the server was asked, over how many connections."""

    target: OpenAITarget
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)

    async def ask(self, max_tokens: int | None = None) -> tuple[list[str], Usage | None]:
        call = await self.target.open(SCRIPT, "c1")
        pieces = [piece async for piece in call.turn(MESSAGES, max_tokens)]
        await call.close()
        return pieces, call.usage


@asynccontextmanager
async def stand_in(answer: Answer, **options: Any) -> AsyncIterator[StandIn]:
    async def complete(request: web.Request) -> web.StreamResponse:
        seen.bodies.append(await request.json())
        seen.headers.append(dict(request.headers))
        seen.connections.add(request.transport)
        return await answer(request)

    async def delete(request: web.Request) -> web.Response:
        seen.deleted.append(request.match_info["id"])
        return web.Response(status=204 if len(seen.deleted) == 1 else 404)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_delete("/v1/calls/{id}", delete)
    async with TestServer(app) as server, OpenAITarget(f"{server.make_url('/v1')}/", "tiny", **options) as target:
        seen = StandIn(target)
        yield seen


def chunk(content: str | None = None, finish_reason: str | None = None, **more: Any) -> bytes:
    delta = {} if content is None else {"content": content}
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more})


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def usage(cached: dict[str, Any]) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35, **cached}})


def streams(*parts: bytes, hold: asyncio.Event | None = None) -> Answer:
    """Stream the parts; then wait for ``hold``, so that nothing depends on timing."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        if hold is not None:
            await hold.wait()
        return response

    return answer


def answers(status: int, body: str = "", **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


GOOD = (
    chunk("", None, usage=None),
    b": keep-alive\n\n",
    chunk("Mer"),
    chunk("haba."),
    chunk(finish_reason="stop"),
    usage({"prompt_tokens_details": {"cached_tokens": 20}}),
    b"data: [DONE]\n\n",
)


async def test_a_reply_streams_and_tells_its_usage() -> None:
    async with stand_in(streams(*GOOD)) as server:
        assert await server.ask() == (["Mer", "haba."], Usage(30, 20, 5))


@pytest.mark.parametrize("cached", [{}, {"prompt_tokens_details": None}, {"prompt_tokens_details": {}}])
async def test_a_server_that_does_not_tell_what_was_cached_counts_none(cached: dict[str, Any]) -> None:
    async with stand_in(streams(chunk("Evet.", "stop"), usage(cached))) as server:
        assert (await server.ask())[1] == Usage(30, 0, 5)


async def test_usage_counts_wherever_in_the_stream_it_comes() -> None:
    async with stand_in(streams(usage({}), chunk("Evet.", "stop", usage=None))) as server:
        assert await server.ask() == (["Evet."], Usage(30, 0, 5))


async def test_a_server_that_tells_no_usage_has_none() -> None:
    async with stand_in(streams(chunk("Evet.", "length"))) as server:
        assert await server.ask() == (["Evet."], None)


async def test_text_comes_as_it_is_sent_and_whole_characters_across_writes() -> None:
    whole = chunk("Çağrı ")
    cut = whole.index("ğ".encode()) + 1
    hold = asyncio.Event()
    async with stand_in(streams(whole[:cut], whole[cut:], hold=hold)) as server:
        call = await server.target.open(SCRIPT, "c1")
        async with aclosing(call.turn(MESSAGES, None)) as pieces:
            assert await anext(pieces) == "Çağrı "
        hold.set()


async def test_the_request_is_streamed_laid_out_like_the_engines_and_has_all_options() -> None:
    options = {"headers": {"Authorization": "Bearer k"}, "options": {"temperature": 0}}
    async with stand_in(streams(*GOOD), **options) as server:
        await server.ask(max_tokens=40)
        await server.ask()
    first, second = server.bodies
    assert first == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Kısa konuş.\n\nInformation for this call:\nPoliçe NH 1."},
            {"role": "user", "content": "Merhaba"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": 40,
    }
    assert "max_tokens" not in second
    assert server.headers[0]["Authorization"] == "Bearer k"
    assert "x-call-id" not in server.headers[0]
    assert server.deleted == []


async def test_turns_reuse_the_connection() -> None:
    async with stand_in(streams(*GOOD)) as server:
        for _ in range(3):
            await server.ask()
    assert len(server.connections) == 1


async def test_call_ids_are_sent_and_the_call_is_ended_even_where_the_server_has_dropped_it() -> None:
    async with stand_in(streams(*GOOD), call_ids=True) as server:
        await server.ask()
        await server.ask()
    assert [headers["x-call-id"] for headers in server.headers] == ["c1", "c1"]
    assert server.deleted == ["c1", "c1"]


@pytest.mark.parametrize(("retry_after", "expected_s"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0)])
async def test_a_full_server_is_told_apart(retry_after: str, expected_s: float) -> None:
    async with stand_in(answers(429, "busy", Retry_After=retry_after)) as server:
        with pytest.raises(AtCapacityError, match="HTTP 429: busy") as refused:
            await server.ask()
    assert refused.value.retry_after_s == expected_s


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_a_refusal_tells_its_status_and_the_servers_words(status: int) -> None:
    async with stand_in(answers(status, "no such model" + "!" * 9000)) as server:
        with pytest.raises(TargetError, match=f"HTTP {status}: no such model") as refused:
            await server.ask()
    assert refused.value.status == status
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((chunk("Mer"),), "broke off"),
        ((), "broke off"),
        ((chunk("Mer"), b"data: {oops\n\n"), "no chat completion: {oops"),
        ((event({"choices": [{"delta": {"content": 7}}]}),), "no chat completion"),
        ((event([1]),), "no chat completion"),
        ((event({"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 0}}),), "no chat completion"),
        ((chunk("Mer"), event({"error": {"message": "out of memory"}})), "during the reply.*out of memory"),
        ((b"data: " + b"x" * 2**20,), "LineTooLong"),
    ],
)
async def test_a_reply_that_is_cut_or_garbled_is_an_error(parts: tuple[bytes, ...], message: str) -> None:
    async with stand_in(streams(*parts)) as server:
        with pytest.raises(TargetError, match=message):
            await server.ask()


async def test_an_answer_that_is_no_stream_is_an_error() -> None:
    async with stand_in(answers(200, "<html>", Content_Type="text/html")) as server:
        with pytest.raises(TargetError, match="text/html"):
            await server.ask()


async def test_a_connection_that_breaks_is_an_error() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = await streams(chunk("Mer"))(request)
        assert request.transport is not None
        request.transport.abort()
        return response

    async with stand_in(answer) as server:
        with pytest.raises(TargetError):
            await server.ask()


async def test_a_server_that_is_silent_for_too_long_is_an_error() -> None:
    hold = asyncio.Event()
    async with stand_in(streams(chunk("Mer"), hold=hold), timeout_s=0.05) as server:
        with pytest.raises(TargetError, match="silent"):
            await server.ask()
        hold.set()


async def test_a_server_that_is_not_there_is_an_error() -> None:
    async with stand_in(streams(*GOOD)) as server:
        url = server.target.base_url
    async with OpenAITarget(url, "tiny") as target:
        call = await target.open(SCRIPT, "c1")
        with pytest.raises(TargetError):
            await anext(call.turn(MESSAGES, None))


async def test_callers_hold_their_calls_over_http() -> None:
    async with stand_in(streams(*GOOD)) as server:
        result = await run_calls(server.target, [SCRIPT] * 4, concurrent=2, speed=1e4)
    assert [call.turns[0].text for call in result.calls] == ["Merhaba."] * 4
    assert result.errors == ()
    async with stand_in(answers(500)) as server:
        result = await run_calls(server.target, [SCRIPT] * 4, concurrent=2, speed=1e4)
    assert result.errors == ("target: HTTP 500: ",) * 4


def test_an_option_that_the_target_sets_itself_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="stream"):
        OpenAITarget("http://localhost/v1", "tiny", options={"stream": False})


def test_without_aiohttp_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ConfigError, match=r'pip install "pipecat-voice-llm\[simulator\]"'):
        OpenAITarget("http://localhost/v1", "tiny")


def test_importing_the_simulator_does_not_import_aiohttp() -> None:
    script = "import sys, voice_llm.simulator; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
