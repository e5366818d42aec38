"""What one peer can cost: bounded time, bounded memory, and no other call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tests.runtime.helpers import GatedBackend
from tests.servers.conversation_helpers import TENANT, Peer, calling, ends, spoken
from voice_llm.errors import EngineError, InvalidRequestError
from voice_llm.events import FinishReason, Timings, Usage
from voice_llm.observer import Observer
from voice_llm.prompt import Message
from voice_llm.servers.conversation_outbox import EventLog
from voice_llm.servers.conversations import Conversations
from voice_llm.session import CallError, CallSession, CallThought, CallToolCall, Chunk, Ready, SessionEvent, TurnEnd
from voice_llm.session.contract import ClientEvent, Confirm, End, Params, Partial, Start, Turn
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit


class Refusals(Observer):
    """Notes the calls that were refused."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def call_refused(self, code: str) -> None:
        self.codes.append(code)


class TestStart:
    async def test_connection_that_starts_no_call_is_ended(self) -> None:
        async with calling() as edge:
            peer = Peer(Conversations(edge.host, edge.config, start_within_s=0.02))
            with pytest.raises(InvalidRequestError, match="no call was started"):
                await peer.to_the_end()

    async def test_events_that_start_no_call_do_not_put_it_off(self) -> None:
        async with calling() as edge:
            peer = Peer(Conversations(edge.host, edge.config, start_within_s=0.02))
            peer.say(Partial("x"), Confirm("t1"))
            with pytest.raises(InvalidRequestError, match="no call was started"):
                await peer.to_the_end()
            assert {e.code for e in peer.all(CallError)} == {"wrong_state"}

    async def test_call_that_was_started_may_be_silent(self) -> None:
        async with calling() as edge:
            conversations = Conversations(edge.host, edge.config, start_within_s=0.02)
            peer, late = Peer(conversations), Peer(conversations)
            await peer.start()
            with pytest.raises(InvalidRequestError):
                await late.to_the_end()  # it came later, so the first one's time is over, too
            peer.say(Turn("t1", "Alo"))
            await peer.until(TurnEnd)
            await conversations.close()

    async def test_history_is_taken_as_it_was_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def read_again(*_: Any) -> None:
            raise AssertionError

        async with calling() as edge:
            monkeypatch.setattr("voice_llm.servers.conversations.parse_messages", read_again, raising=False)
            peer = Peer(edge.conversations)
            await peer.start(history=(Message("user", "Alo"), Message("assistant", "Buyurun.")))
            peer.say(Turn("t1", "Nerede?"))
            await peer.until(TurnEnd)
            assert spoken(peer.told) == "You said Nerede?. That makes 2."

    @pytest.mark.parametrize(
        "start", [Start(profile="x"), Start(language="German"), Start(params=Params(top_p=2.0))], ids=str
    )
    async def test_call_that_cannot_be_as_asked_is_not_counted_as_one_without_room(self, start: Start) -> None:
        observer = Refusals()
        async with calling(observer=observer) as edge:
            peer = Peer(edge.conversations)
            peer.say(start)
            with pytest.raises((InvalidRequestError, LookupError)):
                await peer.to_the_end()
        assert observer.codes == []


async def test_events_that_are_there_already_let_others_run() -> None:
    """A connection never waits where its events are read ahead: the loop would be its own."""
    rounds = 0
    seen: list[int] = []

    async def others() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def incoming() -> AsyncGenerator[ClientEvent, None]:
        for _ in range(100):
            seen.append(rounds)
            yield Partial("x")

    async with calling() as edge:
        other = asyncio.create_task(others())
        async for _ in edge.conversations.converse(incoming(), TENANT):
            pass
        other.cancel()
    assert seen[-1] - seen[0] >= 99


class TestTurns:
    async def test_turns_that_pile_up_are_refused_and_the_call_goes_on(self) -> None:
        backend = GatedBackend(reply=lambda _: "Tamam.")
        async with calling(backend) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            backend.hold()
            peer.say(Turn("t0", "Alo"))
            await backend.held()
            peer.say(*(Turn(f"t{n}", "Alo") for n in range(1, 10)))
            await peer.until(CallError, 6)
            assert {(e.code, e.fatal) for e in peer.all(CallError)} == {("call_busy", False)}
            assert [e.turn_id for e in peer.all(CallError)] == [f"t{n}" for n in range(4, 10)]
            backend.release()
            await peer.until(TurnEnd, 4)
            assert ends(peer.told) == [(f"t{n}", "interrupted") for n in range(3)] + [("t3", "stop")]
            peer.say(Turn("t9", "Şimdi?"))
            await peer.until(TurnEnd, 5)
            assert spoken(peer.told, "t9") == "Tamam."

    async def test_speculations_that_were_given_up_count_until_the_engine_has_let_go_of_them(self) -> None:
        backend = GatedBackend(reply=lambda _: "Tamam.")
        async with calling(backend) as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            backend.hold()
            peer.say(Turn("t0", "Alo", speculative=True))
            await backend.held()
            peer.say(*(Turn(f"t{n}", "Alo", speculative=True) for n in range(1, 10)))
            await peer.until(CallError, 6)
            backend.release()
            peer.say(Confirm("t3"))
            await peer.until(TurnEnd)
            assert ends(peer.told) == [("t3", "stop")]


class TestKept:
    """What a call keeps for a connection that comes back."""

    async def test_answers_to_refused_events_are_not(self) -> None:
        async with calling(FakeBackend(reply=lambda _: "Tamam.")) as edge:
            peer = Peer(edge.conversations)
            ready = await peer.start(call_id="c1")
            peer.say(InvalidRequestError("x" * 1_000_000), Confirm("t9"), Turn("t1", "Alo"))
            await peer.until(TurnEnd)
            assert len(peer.all(CallError)) == 2
            await peer.vanish()
            other = Peer(edge.conversations)
            other.say(Start(call_id="c1", resume_token=ready.resume_token or ""))
            await other.until(TurnEnd)
            assert [type(event) for event in other.told] == [Ready, Chunk, TurnEnd]

    @pytest.mark.parametrize(
        "event",
        [
            Chunk("t1", 0, "x" * 100_000, final=False),
            CallThought("t1", "x" * 100_000),
            CallToolCall("t1", "c1", "look_up", {"where": "x" * 100_000}),
            CallError("invalid_request", "x" * 100_000),
        ],
        ids=lambda event: type(event).__name__,
    )
    def test_text_is_bounded(self, event: SessionEvent) -> None:
        log = EventLog()
        for _ in range(50):
            log.append(event)
        assert 5 <= len(log) <= 10
        for _ in range(2000):
            log.append(Chunk("t2", 0, "x" * 1000, final=False))
        assert 900 <= len(log) <= 1100, "what was forgotten leaves its room to what comes"
        log.append(TurnEnd("t2", FinishReason.STOP, Usage(), Timings()))
        assert isinstance(log.since("", 0)[-1], TurnEnd)


class TestEnd:
    async def test_connection_ends_even_where_the_call_cannot(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def broken(session: CallSession, reason: str) -> None:
            await end(session, reason)
            raise LookupError("secret detail")

        end = CallSession.end
        monkeypatch.setattr(CallSession, "end", broken)
        async with calling() as edge:
            peer = Peer(edge.conversations)
            await peer.start()
            peer.say(End())
            with pytest.raises(EngineError):
                await peer.to_the_end()
            assert len(edge.conversations) == 0
        assert "LookupError" in caplog.text
