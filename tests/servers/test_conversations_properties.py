"""Whatever a peer says and however often its connection drops: the call keeps its promises."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers.conversation_helpers import Peer, calling
from voice_llm.errors import BackendError, InvalidRequestError
from voice_llm.prompt import Message, Tool
from voice_llm.servers.edge import Edge
from voice_llm.session import CallError, CallToolCall, Chunk, Ended, Ready, SessionEvent, TurnEnd
from voice_llm.session.contract import (
    Confirm,
    Context,
    End,
    Interrupt,
    Partial,
    Played,
    Start,
    ToolResult,
    Turn,
    Withdraw,
)
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

CALL = '<tool_call>{"name":"look_up","arguments":{}}</tool_call>'


def reply(prompt: str) -> str:
    """Asks for a tool where the caller's last words say so, and has not been answered yet."""
    asked = prompt.rpartition("<|im_start|>user\nsoru")[2]
    if "araç" in asked and "</tool_response>" not in asked:
        return "Bir bakayım, hemen söylüyorum. " + CALL + CALL
    return "Elbette, hemen bakıyorum. Siparişiniz yolda. Yarın öğlen sizde olur."


class Caller:
    """A peer over several connections; keeps the book of what it was told."""

    def __init__(self, edge: Edge, backend: FakeBackend) -> None:
        self.chunks: dict[str, list[Chunk]] = defaultdict(list)
        self.ends: dict[str, TurnEnd] = {}
        self.open_calls: list[str] = []
        self.ended: Ended | None = None
        self._edge = edge
        self._backend = backend
        self._last: Chunk | None = None
        self._booked = 0
        self.peer = Peer(edge.conversations)

    async def start(self) -> None:
        self._ready = await self.peer.start(call_id="c1", tools=(Tool("look_up"),))
        [call] = self._edge.conversations._calls.values()
        self._session = call._session

    async def act(self, name: str, argument: Any) -> None:
        await getattr(self, name)(argument)

    async def say(self, event: Any) -> None:
        self.peer.say(event)

    async def wait(self, turns: int) -> None:
        """Let the engine and the loop go on for a while."""
        for _ in range(turns):
            await asyncio.sleep(0.0005)

    async def fail(self, _: None) -> None:
        self._backend.fail_next(BackendError("out of luck"))

    async def answer(self, which: int) -> None:
        self.book()
        if self.open_calls:
            self.peer.say(ToolResult(self.open_calls[which % len(self.open_calls)], "yolda"))

    async def drop(self, hangs_up: bool) -> None:
        if hangs_up:
            self.peer.hang_up()
            await asyncio.sleep(0)
        await self.peer.vanish()
        self.book()
        self.peer = Peer(self._edge.conversations)
        self._booked = 0
        last = (self._last.turn_id, self._last.index) if self._last else ("", 0)
        self.peer.say(
            Start(
                call_id="c1",
                resume_token=self._ready.resume_token or "",
                last_turn_id=last[0],
                last_index=last[1],
            )
        )
        await self.peer.until(Ready)

    async def hang_up(self) -> None:
        self.peer.say(End("bye"))
        self.ended = await self.peer.until(Ended)
        self.book()

    def book(self) -> None:
        """Write down what this connection has told, chunk by chunk in order and each once."""
        told = self.peer.told
        for event in told[self._booked :]:
            self._book(event, told)
        self._booked = len(told)

    def _book(self, event: SessionEvent, told: list[SessionEvent]) -> None:
        if isinstance(event, Chunk):
            assert event.index == len(self.chunks[event.turn_id])
            assert event.turn_id not in self.ends
            self.chunks[event.turn_id].append(event)
            self._last = event
        elif isinstance(event, TurnEnd):
            assert sum(isinstance(e, TurnEnd) and e.turn_id == event.turn_id for e in told) == 1
            assert self.ends.setdefault(event.turn_id, event) == event
        elif isinstance(event, CallToolCall):
            self.open_calls.append(event.tool_call_id)
        elif isinstance(event, CallError):
            assert not event.fatal
            assert event.code in {"wrong_state", "invalid_request", "internal", "call_busy"}

    def check(self) -> None:
        assert self.ended is not None
        assert self.ended.turns == len(self.ends)
        assert self.chunks.keys() <= self.ends.keys()
        for turn_id, chunks in self.chunks.items():
            last = [chunk.final for chunk in chunks]
            assert not any(last[:-1])
            if self.ends[turn_id].finish_reason == "stop":
                assert last[-1]
        self._check_history(self._session.messages)

    def _check_history(self, messages: list[Message]) -> None:
        """Every question that was answered or begun, in order, and behind each what was heard of its reply."""
        asked = [m.content.split()[1] for m in messages if m.role == "user"]
        assert asked == list(self.ends)
        turn_id = ""
        said: dict[str, str] = defaultdict(str)
        for message in messages:
            if message.role == "user":
                turn_id = message.content.split()[1]
            elif message.role == "assistant":
                said[turn_id] += message.content
                assert message.content or message.tool_calls
        for turn_id, words in said.items():
            told = "".join(c.text for c in self.chunks[turn_id])
            assert squeezed(told).startswith(squeezed(words)), (words, told)


def squeezed(text: str) -> str:
    return "".join(text.split())


IDS = st.sampled_from([f"t{n}" for n in range(8)])


def turn(turn_id: str, *, tools: bool, speculative: bool) -> Turn:
    return Turn(turn_id, f"soru {turn_id} {'araç' if tools else ''}", speculative=speculative)


EVENTS = st.one_of(
    st.builds(turn, IDS, tools=st.booleans(), speculative=st.booleans()),
    st.builds(turn, IDS, tools=st.booleans(), speculative=st.just(True)),
    st.builds(Confirm, IDS),
    st.builds(Withdraw, IDS),
    st.builds(Played, IDS, st.integers(-1, 5), st.integers(-1, 3000)),
    st.builds(Interrupt, st.sampled_from([None, ""])),
    st.builds(Partial, st.sampled_from(["", "soru t1", "sor"])),
    st.builds(Context, st.sampled_from(["", "Kargo yolda."])),
    st.builds(ToolResult, st.just("call_x"), st.none()),
    st.just(Start()),
    st.just(InvalidRequestError("nonsense")),
)
ACTS = st.one_of(
    st.tuples(st.just("say"), EVENTS),
    st.tuples(st.just("say"), EVENTS),
    st.tuples(st.just("say"), EVENTS),
    st.tuples(st.just("wait"), st.integers(0, 6)),
    st.tuples(st.just("answer"), st.integers(0, 9)),
    st.tuples(st.just("drop"), st.booleans()),
    st.tuples(st.just("fail"), st.none()),
)


async def hold_call(acts: list[tuple[str, Any]]) -> None:
    backend = FakeBackend(reply=reply)
    async with calling(backend) as edge:
        caller = Caller(edge, backend)
        await caller.start()
        for name, argument in acts:
            await caller.act(name, argument)
        await caller.hang_up()
        caller.check()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(ACTS, min_size=3, max_size=25))
def test_chunks_come_once_turns_end_once_and_the_history_is_what_was_heard(acts: list[tuple[str, Any]]) -> None:
    asyncio.run(hold_call(acts))
