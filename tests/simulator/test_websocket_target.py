"""A server over WebSocket as a target: a real one on loopback, and a stand-in where it has to misbehave."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tests.servers.ws.helpers import serving
from voice_llm.backend import BatchEntry
from voice_llm.errors import AtCapacityError, ConfigError, EngineDeadError, InvalidRequestError
from voice_llm.simulator import CallerTurn, CallScript, ChatMessages, TargetCall, TargetError, run_calls
from voice_llm.simulator.script import Moment
from voice_llm.simulator.websocket_target import WebSocketTarget
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

SCRIPT = CallScript(turns=(CallerTurn("Merhaba?", max_tokens=40), CallerTurn("And fire?")), rag_context="Poliçe NH 1.")
PATIENCE_S = 20.0
TURN_END = {"type": "turn_end", "turn_id": "turn-1", "finish_reason": "stop"}
CHUNK = {"type": "chunk", "turn_id": "turn-1", "text": "Evet, "}
Answer = Callable[["Line"], Awaitable[None]]


class Line:
    """The stand-in's side of one call."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection

    async def hear(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(await self.connection.recv())
        return event

    async def say(self, *events: object) -> None:
        for event in events:
            raw = event if isinstance(event, (str, bytes)) else json.dumps(event)
            await self.connection.send(raw)

    async def answer(self, *events: object) -> None:
        """Take the call, and say this to its first turn."""
        await self.hear()
        await self.say({"type": "ready"})
        await self.hear()
        await self.say(*events)

    async def hear_on(self) -> None:
        """Until the caller hangs up, or the connection is gone."""
        async for message in self.connection:
            if json.loads(message)["type"] == "end":
                return


@asynccontextmanager
async def stand_in(answer: Answer, **options: Any) -> AsyncIterator[tuple[WebSocketTarget, list[Line]]]:
    lines: list[Line] = []

    async def hold(connection: ServerConnection) -> None:
        lines.append(Line(connection))
        await answer(lines[-1])

    async with serve(hold, "127.0.0.1", 0) as server:
        yield WebSocketTarget(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", **options), lines


def saying(*events: object) -> Answer:
    async def answer(line: Line) -> None:
        await line.answer(*events)
        await line.hear_on()

    return answer


def asking(text: str) -> ChatMessages:
    return [{"role": "user", "content": text}]


async def ask(call: TargetCall, text: str = "Merhaba?", max_tokens: int | None = None) -> str:
    async with asyncio.timeout(PATIENCE_S):
        return "".join([piece async for piece in call.turn(asking(text), max_tokens)])


def target_of(port: int, **options: Any) -> WebSocketTarget:
    return WebSocketTarget(f"ws://127.0.0.1:{port}", **options)


class SlowBackend(FakeBackend):
    """Speaks so slowly that there is time to break in."""

    def decode(self, entries: Sequence[BatchEntry]) -> int:
        time.sleep(0.002)
        return super().decode(entries)


SENTENCES = " ".join(f"This is sentence number {n} of the reply." for n in range(10))


def reply_that_remembers(prompt: str) -> str:
    """To the first words a long reply, to others what the prompt has of the reply before."""
    before = re.findall(r"<\|im_start\|>assistant\n(.*?)<\|im_end\|>", prompt, flags=re.DOTALL)
    return f"Before: {before[-1]}" if before else SENTENCES


class TestOurServer:
    async def test_callers_hold_their_calls(self) -> None:
        async with serving() as served:
            result = await run_calls(target_of(served.port), [SCRIPT] * 3, concurrent=2, speed=100.0)
        assert result.errors == ()
        assert [turn.text for turn in result.turns if turn.turn == 0] == ["You said Merhaba?. That makes 1."] * 3
        assert [turn.text for turn in result.turns if turn.turn == 1] == ["You said And fire?. That makes 2."] * 3
        assert all(turn.usage is not None and turn.usage.cached_tokens > 0 for turn in result.turns)
        assert all(turn.timings is not None and turn.timings.total_ms for turn in result.turns)
        assert served.requests.ended == [("ws", "ok")] * 3

    async def test_words_said_so_far_are_computed_before_the_turn_ends(self) -> None:
        backend = FakeBackend()
        async with serving(backend) as served:
            call = await target_of(served.port).open(SCRIPT, "c1")
            await ask(call, "Hello?")
            before = backend.counters.decoded_tokens
            said = "is the water in my kitchen covered by the policy that I have"
            await call.prefill(asking(said))
            async with asyncio.timeout(PATIENCE_S):
                while backend.counters.decoded_tokens - before < len(said):
                    await asyncio.sleep(0.005)
            await ask(call, f"{said}?")
            usage = call.usage
            await call.close()
        assert usage is not None
        assert usage.prompt_tokens - usage.cached_tokens < 20

    @pytest.mark.parametrize("backend_kind", [SlowBackend, FakeBackend])
    @pytest.mark.parametrize("pacing", ["off", "voice"])
    async def test_server_remembers_only_what_was_heard_of_a_reply_that_was_broken_off(
        self, backend_kind: type[FakeBackend], pacing: str
    ) -> None:
        """Whether the reply was still being written, or only played."""
        turns = (
            CallerTurn("Tell me all.", max_tokens=500),
            CallerTurn("What did I hear?", max_tokens=500, starts=Moment("word", word="1")),
        )
        backend = backend_kind(reply=reply_that_remembers)
        async with serving(backend) as served:
            there = target_of(served.port, params={"pacing": pacing})
            result = await run_calls(there, [CallScript(turns=turns)], concurrent=1, speed=10.0)
        assert result.errors == ()
        first, second = result.turns
        assert first.heard is not None
        assert first.heard.startswith("This is sentence number 0 of the reply. This is sentence number 1")
        assert len(first.heard) < len(SENTENCES)
        assert second.text.strip() == f"Before: {first.heard}".strip()
        assert second.interrupted_ms is not None

    async def test_caller_who_hangs_up_in_the_middle_of_a_reply_frees_the_call(self) -> None:
        turn = CallerTurn("Tell me all.", max_tokens=500, hangs_up=Moment("first_token", 0.5))
        backend = SlowBackend(reply=reply_that_remembers)
        async with serving(backend) as served:
            result = await run_calls(target_of(served.port), [CallScript(turns=(turn,))] * 2, concurrent=1, speed=10.0)
            assert len(served.edge.conversations) == 0
        assert result.errors == ()
        assert all(turn.stopped_ms is not None for turn in result.turns)
        assert all(0 < len(turn.text) < len(SENTENCES) for turn in result.turns)

    async def test_server_that_knows_no_such_key_refuses_the_call_in_its_own_words(self) -> None:
        async with serving(api_keys={"north-secret": "north"}) as served:
            result = await run_calls(target_of(served.port), [SCRIPT], concurrent=1, speed=100.0)
            assert len(result.errors) == 1
            assert "unauthenticated" in result.errors[0] or "4401" in result.errors[0]
            there = target_of(served.port, headers={"Authorization": "Bearer north-secret"})
            assert (await run_calls(there, [SCRIPT], concurrent=1, speed=100.0)).errors == ()

    async def test_server_that_is_full_refuses_the_call_and_takes_the_others(self) -> None:
        async with serving(max_calls=1) as served:
            there = target_of(served.port)
            first = await there.open(SCRIPT, "c1")
            await ask(first)
            second = await there.open(SCRIPT, "c2")
            with pytest.raises(TargetError):
                await ask(second)
            await second.close()
            await ask(first)
            await first.close()


async def test_call_is_named_in_the_path_and_headers_are_sent() -> None:
    async with stand_in(saying(CHUNK, TURN_END), headers={"Authorization": "Bearer k"}) as (there, lines):
        call = await there.open(SCRIPT, "a/ç 1")
        assert await ask(call) == "Evet, "
        await call.close()
    request = lines[0].connection.request
    assert request is not None
    assert request.path == "/v1/calls/a%2F%C3%A7%201"
    assert request.headers["Authorization"] == "Bearer k"


async def test_reply_that_is_broken_off_is_interrupted_with_what_was_heard() -> None:
    heard: list[dict[str, Any]] = []

    async def answer(line: Line) -> None:
        await line.answer(CHUNK)
        heard.append(await line.hear())
        await line.hear_on()

    async with stand_in(answer) as (there, _):
        call = await there.open(SCRIPT, "c1")
        async with aclosing(call.turn(asking("Merhaba?"), None)) as pieces:
            assert await anext(pieces) == "Evet, "
            await call.interrupt("Ev")
        await call.close()
    assert heard == [{"type": "interrupt", "spoken_text": "Ev"}]


async def test_nobody_at_the_url_is_an_error_of_the_call() -> None:
    with socket.socket() as bound:  # bound, and nobody listens
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(EngineDeadError, match="no call can be opened at ws://127"):
            await target_of(bound.getsockname()[1]).open(SCRIPT, "c1")


@pytest.mark.parametrize("url", ["ws://", "http://127.0.0.1:1", "ws://127.0.0.1:99999", "nonsense"])
async def test_url_that_is_none_is_an_error_of_the_call(url: str) -> None:
    with pytest.raises(EngineDeadError):
        await WebSocketTarget(url).open(SCRIPT, "c1")


async def test_server_that_does_not_shake_hands_is_an_error_of_the_call() -> None:
    ended = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        with pytest.raises(EngineDeadError):
            await target_of(server.sockets[0].getsockname()[1], timeout_s=0.05).open(SCRIPT, "c1")
        ended.set()


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.BAD_GATEWAY])
async def test_server_that_refuses_the_connection_tells_why(status: HTTPStatus) -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(status, "not you" + "!" * 9000)

    async def hold(connection: ServerConnection) -> None:
        raise AssertionError("it was refused")

    async with serve(hold, "127.0.0.1", 0, process_request=refuse) as server:
        with pytest.raises(TargetError, match=f"HTTP {status.value}: not you") as refused:
            await target_of(server.sockets[0].getsockname()[1]).open(SCRIPT, "c1")
    assert refused.value.status == status
    assert len(str(refused.value)) < 300


async def test_server_that_has_no_room_says_when_it_may() -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        response = connection.respond(HTTPStatus.TOO_MANY_REQUESTS, "all calls are taken")
        response.headers["Retry-After"] = "7"
        return response

    async def hold(connection: ServerConnection) -> None:
        raise AssertionError("it was refused")

    async with serve(hold, "127.0.0.1", 0, process_request=refuse) as server:
        with pytest.raises(AtCapacityError, match="all calls are taken") as refused:
            await target_of(server.sockets[0].getsockname()[1]).open(SCRIPT, "c1")
    assert refused.value.retry_after_s == 7


@pytest.mark.parametrize(("code", "words"), [(1000, "ended the call"), (1011, "closed the connection.*out of memory")])
async def test_server_that_closes_in_the_middle_of_a_reply_fails_the_turn(code: int, words: str) -> None:
    async def answer(line: Line) -> None:
        await line.answer(CHUNK)
        await line.connection.close(code, "out of memory")

    async with stand_in(answer) as (there, _):
        call = await there.open(SCRIPT, "c1")
        with pytest.raises(TargetError, match=words):
            await ask(call)
        await call.close()


async def test_connection_that_breaks_fails_the_turn() -> None:
    async def answer(line: Line) -> None:
        await line.answer(CHUNK)
        line.connection.transport.abort()

    async with stand_in(answer) as (there, _):
        call = await there.open(SCRIPT, "c1")
        with pytest.raises(TargetError, match="closed the connection"):
            await ask(call)
        await call.prefill(asking("Mer"))
        await call.close()


@pytest.mark.parametrize("rubbish", ["{oops", "[1]", "7", '{"kind": "chunk"}', '{"type": 7}', b"\xff\xfe", "[" * 9000])
async def test_what_is_no_event_fails_the_turn(rubbish: str | bytes) -> None:
    async with stand_in(saying(CHUNK, rubbish), timeout_s=2.0) as (there, _):
        call = await there.open(SCRIPT, "c1")
        with pytest.raises(TargetError, match="no event"):
            await ask(call)
        await call.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "chunk", "turn_id": "turn-1", "text": 7},
        {"type": "tool_call", "turn_id": "turn-1"},
        {"type": "tool_call", "turn_id": "turn-1", "tool_call_id": "t", "name": "n", "arguments": 7},
        {**TURN_END, "usage": 7},
        {**TURN_END, "usage": {"prompt_tokens": "many"}},
        {**TURN_END, "timings": [1]},
    ],
)
async def test_event_with_fields_that_are_wrong_fails_the_call_and_not_the_run(wrong: dict[str, Any]) -> None:
    async with stand_in(saying(wrong, TURN_END)) as (there, _):
        result = await run_calls(there, [CallScript(turns=(CallerTurn("Merhaba?"),))], concurrent=1, speed=100.0)
    assert len(result.errors) == 1


async def test_server_that_falls_silent_fails_the_turn() -> None:
    async with stand_in(saying(CHUNK), timeout_s=0.05) as (there, _):
        call = await there.open(SCRIPT, "c1")
        with pytest.raises(TargetError, match=r"silent for 0\.05 s"):
            await ask(call)
        await call.close()


async def test_other_calls_go_on_where_the_server_drops_one() -> None:
    async def answer(line: Line) -> None:
        assert line.connection.request is not None
        if line.connection.request.path.endswith("r-1"):
            await line.connection.close(1011)
            return
        await line.answer(CHUNK, TURN_END)
        await line.hear_on()

    script = CallScript(turns=(CallerTurn("Merhaba?"),))
    async with stand_in(answer) as (there, lines):
        result = await run_calls(there, [script] * 4, concurrent=2, speed=100.0, run_id="r")
    assert [bool(call.errors) for call in result.calls] == [False, True, False, False]
    assert len(lines) == 4


def test_longest_reply_is_the_targets_own_to_set() -> None:
    with pytest.raises(InvalidRequestError, match="max_tokens"):
        WebSocketTarget("ws://127.0.0.1:1", params={"max_tokens": 4})


def test_without_websockets_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets", None)
    with pytest.raises(ConfigError, match=r'pip install "pipecat-voice-llm\[simulator\]"'):
        WebSocketTarget("ws://127.0.0.1:1")
