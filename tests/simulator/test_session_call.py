"""The call contract from the caller's side, over a wire that a test holds the other end of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from voice_llm.errors import EngineDeadError, InvalidRequestError, VoiceLLMError
from voice_llm.events import Timings, ToolCall, Usage
from voice_llm.simulator import CallerTurn, CallScript, ChatMessages, TargetError
from voice_llm.simulator.session_call import Event, SessionCall, check_params

from .fakes import now, virtually

pytestmark = pytest.mark.unit

SCRIPT = CallScript(turns=(CallerTurn("Merhaba?"),))
READY: Event = {"type": "ready", "call_id": "c1"}
END: Event = {"type": "turn_end", "turn_id": "turn-1", "finish_reason": "stop"}


class FakeWire:
    """Notes what is sent; what a test puts in ``incoming`` is what the server says, None the end of the call."""

    def __init__(self, *incoming: Event | VoiceLLMError | None) -> None:
        self.sent: list[Event] = []
        self.incoming: asyncio.Queue[Event | VoiceLLMError | None] = asyncio.Queue()
        self.closed = False
        self.say(*incoming)

    def say(self, *incoming: Event | VoiceLLMError | None) -> None:
        for event in incoming:
            self.incoming.put_nowait(event)

    def send(self, event: Event) -> None:
        assert not self.closed
        self.sent.append(event)
        if event["type"] == "end":
            self.incoming.put_nowait(None)

    async def events(self) -> AsyncIterator[Event]:
        while (event := await self.incoming.get()) is not None:
            if isinstance(event, VoiceLLMError):
                raise event
            yield event

    async def close(self) -> None:
        self.closed = True

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.sent]


def asking(text: str, **more: Any) -> ChatMessages:
    return [{"role": "user", "content": text, **more}]


def chunk(text: str, turn_id: str = "turn-1") -> Event:
    return {"type": "chunk", "turn_id": turn_id, "text": text}


def session(wire: FakeWire, script: CallScript = SCRIPT, **options: Any) -> SessionCall:
    return SessionCall(wire, script, "c1", **({"params": {}} | options))


async def settled() -> None:
    """Let the call take in what the wire has."""
    for _ in range(10):
        await asyncio.sleep(0)


async def ask(call: SessionCall, text: str = "Merhaba?", max_tokens: int | None = None) -> list[str]:
    async with asyncio.timeout(5):
        return [piece async for piece in call.turn(asking(text), max_tokens)]


async def test_call_begins_with_all_that_is_known_of_it() -> None:
    tool = {"type": "function", "function": {"name": "book", "description": "", "parameters": {"type": "object"}}}
    script = CallScript(
        turns=(CallerTurn("Merhaba?"),),
        system_prompt="Kısa konuş.",
        rag_context="Poliçe NH 1.",
        language="tr",
        history=({"role": "assistant", "content": "Buyurun.", "name": "left out"},),
        tools=(tool,),
    )
    wire = FakeWire()
    call = session(wire, script, params={"temperature": 0})
    assert wire.sent == [
        {
            "type": "start",
            "call_id": "c1",
            "system_prompt": "Kısa konuş.",
            "rag_context": "Poliçe NH 1.",
            "language": "tr",
            "history": [{"role": "assistant", "content": "Buyurun."}],
            "tools": [{"name": "book", "parameters": {"type": "object"}}],
            "params": {"temperature": 0},
        }
    ]
    await call.close()


async def test_what_is_not_known_is_not_sent() -> None:
    wire = FakeWire()
    call = session(wire)
    assert wire.sent == [{"type": "start", "call_id": "c1"}]
    await call.close()


async def test_words_so_far_are_told_only_once_the_call_is_ready() -> None:
    wire = FakeWire()
    call = session(wire)
    await call.prefill(asking("Mer"))
    wire.say(READY)
    await settled()
    await call.prefill(asking(""))
    await call.prefill(asking("Merha"))
    assert wire.sent[1:] == [{"type": "partial", "text": "Merha"}]
    wire.say(None)
    await settled()
    await call.prefill(asking("Merhaba"))
    assert len(wire.sent) == 2
    await call.close()


async def test_turn_waits_until_the_call_is_ready() -> None:
    wire = FakeWire()
    call = session(wire)
    asked = asyncio.create_task(ask(call))
    await settled()
    assert wire.kinds() == ["start"]
    wire.say(READY, chunk("Evet."), END)
    assert await asked == ["Evet."]
    assert wire.kinds() == ["start", "turn"]
    await call.close()


async def test_turn_is_asked_with_its_limit_and_its_text_and_told_with_figures() -> None:
    told: list[Timings] = []
    end = {
        **END,
        "usage": {"prompt_tokens": 9, "cached_tokens": 4, "completion_tokens": 2},
        "timings": {"queue_ms": 0.0, "first_token_ms": 12.5, "total_ms": 40.0},
    }
    wire = FakeWire(READY, chunk("Ev"), chunk("et."), end)
    call = session(wire, params={"temperature": 0}, on_turn_end=told.append)
    pieces = [piece async for piece in call.turn(asking("Merhaba?", rag_context="Poliçe NH 2."), 40)]
    assert pieces == ["Ev", "et."]
    assert wire.sent[1] == {
        "type": "turn",
        "turn_id": "turn-1",
        "text": "Merhaba?",
        "params": {"temperature": 0, "max_tokens": 40},
        "rag_context": "Poliçe NH 2.",
    }
    assert call.usage == Usage(9, 4, 2)
    assert call.timings == Timings(0.0, None, 12.5, None, 40.0)
    assert told == [call.timings]
    await call.close()


async def test_each_turn_has_a_name_of_its_own_and_no_figures_of_the_one_before() -> None:
    wire = FakeWire(READY, {**END, "usage": {"prompt_tokens": 9}})
    call = session(wire)
    await ask(call)
    wire.say({"type": "error", "code": "internal", "message": "gone"})
    with pytest.raises(TargetError):
        await ask(call)
    assert [event["turn_id"] for event in wire.sent if event["type"] == "turn"] == ["turn-1", "turn-2"]
    assert (call.usage, call.timings) == (None, None)
    await call.close()


async def test_what_the_server_still_says_of_the_turn_before_is_not_heard() -> None:
    wire = FakeWire(READY, chunk("Ev"))
    call = session(wire)
    async with aclosing(call.turn(asking("Merhaba?"), None)) as pieces:
        assert await anext(pieces) == "Ev"
    wire.say(chunk("et."), {**END, "finish_reason": "interrupted"}, chunk("Buyurun.", "turn-2"))
    wire.say({**END, "turn_id": "turn-2"})
    assert await ask(call) == ["Buyurun."]
    await call.close()


async def test_events_that_are_not_known_are_passed_over() -> None:
    wire = FakeWire(READY, {"type": "weather", "turn_id": "turn-1"}, chunk("Evet."), END)
    call = session(wire)
    assert await ask(call) == ["Evet."]
    await call.close()


async def test_tool_is_answered_and_the_turn_goes_on() -> None:
    script = CallScript(turns=(CallerTurn("Merhaba?"),), tool_results={"find_room": {"oda": "çift"}})
    called = {"type": "tool_call", "turn_id": "turn-1", "tool_call_id": "t9", "name": "find_room"}
    other = {**called, "tool_call_id": "t10", "name": "unknown", "arguments": {"n": 1}}
    wire = FakeWire(READY, called, other, chunk("Evet."), END)
    call = session(wire, script)
    assert await ask(call) == ["Evet."]
    assert [event for event in wire.sent if event["type"] == "tool_result"] == [
        {"type": "tool_result", "tool_call_id": "t9", "result": {"oda": "çift"}},
        {"type": "tool_result", "tool_call_id": "t10", "result": None},
    ]
    assert call.tool_calls == (ToolCall("t9", "find_room", {}), ToolCall("t10", "unknown", {"n": 1}))
    assert call.runs_tools
    await call.close()


async def test_server_is_told_what_was_heard_of_a_reply_that_is_broken_off() -> None:
    wire = FakeWire(READY, chunk("Evet, "))
    call = session(wire)
    async with aclosing(call.turn(asking("Merhaba?"), None)) as pieces:
        await anext(pieces)
        await call.interrupt("Ev")
    assert wire.sent[-1] == {"type": "interrupt", "spoken_text": "Ev"}
    assert wire.kinds().count("interrupt") == 1
    await call.close()


async def test_reply_that_is_given_up_without_a_word_is_interrupted() -> None:
    wire = FakeWire(READY, chunk("Evet, "))
    call = session(wire)
    async with aclosing(call.turn(asking("Merhaba?"), None)) as pieces:
        await anext(pieces)
    assert wire.sent[-1] == {"type": "interrupt"}
    await call.close()


async def test_server_is_told_what_was_heard_of_a_reply_that_is_complete() -> None:
    """It has the history, and would keep what nobody has heard."""
    wire = FakeWire(READY, chunk("Evet, elbette."), END)
    call = session(wire)
    await ask(call)
    await call.interrupt("Evet,")
    assert wire.sent[-1] == {"type": "interrupt", "spoken_text": "Evet,"}
    await call.close()


async def test_turn_that_was_not_asked_yet_interrupts_nothing() -> None:
    """The server would take it for the turn before."""
    wire = FakeWire()
    call = session(wire)
    asked = asyncio.create_task(ask(call))
    await settled()
    await call.interrupt("")
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert wire.kinds() == ["start"]
    await call.close()


@pytest.mark.parametrize("error", [{"code": "context_too_long", "message": "too long"}, {}])
async def test_error_of_the_server_fails_the_turn(error: dict[str, str]) -> None:
    wire = FakeWire(READY, chunk("Ev"), {"type": "error", **error})
    call = session(wire)
    with pytest.raises(TargetError, match=error.get("code", "None")):
        await ask(call)
    await call.close()


@pytest.mark.parametrize("reason", ["error", "cancelled", "interrupted"])
async def test_reply_that_the_server_cuts_short_fails_the_turn(reason: str) -> None:
    wire = FakeWire(READY, chunk("Ev"), {**END, "finish_reason": reason})
    call = session(wire)
    with pytest.raises(TargetError, match=f"the reply was {reason}"):
        await ask(call)
    assert "interrupt" not in wire.kinds()
    await call.close()


@pytest.mark.parametrize(
    ("incoming", "kind", "words"),
    [
        ((), TargetError, "silent for 7 s"),
        ((READY,), TargetError, "silent for 7 s"),
        ((READY, chunk("Ev")), TargetError, "silent for 7 s"),
        ((None,), TargetError, "ended the call"),
        ((READY, chunk("Ev"), None), TargetError, "ended the call"),
        ((EngineDeadError("gone"),), EngineDeadError, "gone"),
        ((READY, chunk("Ev"), EngineDeadError("gone")), EngineDeadError, "gone"),
    ],
)
def test_server_that_is_silent_or_gone_fails_the_turn(
    incoming: tuple[Event | VoiceLLMError | None, ...], kind: type[VoiceLLMError], words: str
) -> None:
    async def main() -> float:
        wire = FakeWire(*incoming)
        call = session(wire, timeout_s=7.0)
        with pytest.raises(kind, match=words):
            [piece async for piece in call.turn(asking("Merhaba?"), None)]
        failed_s = now()
        await call.close()
        assert wire.closed
        return failed_s

    assert virtually(main) == pytest.approx(7.0 if "silent" in words else 0.0)


def test_silence_counts_from_the_last_word_of_the_server() -> None:
    async def main() -> list[str]:
        wire = FakeWire(READY)
        call = session(wire, timeout_s=7.0)

        async def serve() -> None:
            for event in (chunk("E"), chunk("vet"), chunk("."), END):
                await asyncio.sleep(6.0)
                wire.say(event)

        serving = asyncio.create_task(serve())
        pieces = [piece async for piece in call.turn(asking("Merhaba?"), None)]
        await serving
        await call.close()
        return pieces

    assert virtually(main) == ["E", "vet", "."]


async def test_hanging_up_says_so_and_waits_until_the_server_has_ended_the_call() -> None:
    wire = FakeWire(READY)
    call = session(wire)
    await call.close()
    assert wire.sent[-1] == {"type": "end", "reason": "hangup"}
    assert wire.closed


async def test_call_that_the_server_has_ended_is_only_closed() -> None:
    wire = FakeWire(READY, None)
    call = session(wire)
    await settled()
    await call.close()
    assert wire.kinds() == ["start"]
    assert wire.closed


class DeafWire(FakeWire):
    """Nobody takes notice of what is sent."""

    def send(self, event: Event) -> None:
        self.sent.append(event)


def test_server_that_does_not_end_the_call_is_waited_for_a_while() -> None:
    async def main() -> float:
        wire = DeafWire(READY)
        call = session(wire)
        await call.close()
        assert wire.closed
        ended_s = now()
        await settled()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return ended_s

    assert 0 < virtually(main) <= 20


async def test_cancelled_hang_up_drops_the_connection_all_the_same() -> None:
    wire = DeafWire(READY)
    call = session(wire)
    closing = asyncio.create_task(call.close())
    await settled()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert wire.closed


def test_longest_reply_is_the_targets_own_to_set() -> None:
    with pytest.raises(InvalidRequestError, match="max_tokens") as refused:
        check_params({"max_tokens": 4})
    assert refused.value.param == "max_tokens"
    assert check_params({"temperature": 0}) == {"temperature": 0}
