"""A speculative turn is computed at once and heard only when it holds."""

from __future__ import annotations

import asyncio

import pytest

from voice_llm.errors import InvalidRequestError, WrongStateError
from voice_llm.events import FinishReason
from voice_llm.observer import Observer
from voice_llm.session import CallError, SessionState
from voice_llm.testing import FakeBackend, VirtualClock

from ..runtime.helpers import GatedBackend
from .helpers import calling, end_of, read, said, settled, spoken, until_chunk

pytestmark = pytest.mark.unit

REPLY = "Elbette, hemen bakıyorum. Siparişiniz yolda."
LONG_REPLY = "Bu uzun bir cevap. " * 50


class Counting(Observer):
    def __init__(self) -> None:
        self.barge_ins = 0
        self.discarded = 0

    def barge_in(self) -> None:
        self.barge_ins += 1

    def speculation_discarded(self) -> None:
        self.discarded += 1


class TestConfirmed:
    async def test_has_everything_at_once_then(self) -> None:
        clock = VirtualClock()
        observer = Counting()
        backend = FakeBackend(sequences=1, reply=lambda _: REPLY, clock=clock)
        async with calling(backend, clock=clock, observer=observer) as (session, engine):
            reading = asyncio.create_task(read(session.start_turn("Nerede?", turn_id="s1", speculative=True)))
            await settled(engine)
            assert (reading.done(), said(session)) == (False, [])
            computed = backend.counters.sampled_tokens
            clock.advance(2)
            session.confirm("s1")
            events = await reading
            assert spoken(events) == REPLY
            end = end_of(events)
            assert end.finish_reason is FinishReason.STOP
            assert said(session) == ["Nerede?", REPLY]
            assert backend.counters.sampled_tokens == computed
            assert end.timings.total_ms is not None
            assert end.timings.first_token_ms is not None
            assert 0 <= end.timings.first_token_ms <= end.timings.total_ms < 2000
            assert observer.discarded == 0

    async def test_in_mid_reply_goes_on_live(self) -> None:
        backend = GatedBackend(sequences=1, reply=lambda _: LONG_REPLY)
        async with calling(backend) as (session, _):
            backend.hold(after_tokens=60)
            turn = session.start_turn("Anlat", turn_id="s1", speculative=True)
            await backend.held()
            session.confirm("s1")
            await until_chunk(turn)
            backend.release()
            assert end_of(await read(turn)).finish_reason is FinishReason.LENGTH

    async def test_counts_as_heard_from_then_on(self) -> None:
        """The estimate of what was heard does not begin while nothing was told."""
        clock = VirtualClock()
        backend = FakeBackend(sequences=1, reply=lambda _: REPLY)
        async with calling(backend, clock=clock, profile={"speaking_rate_chars_per_s": 10}) as (session, engine):
            turn = session.start_turn("Nerede?", turn_id="s1", speculative=True)
            await settled(engine)
            clock.advance(60)
            session.confirm("s1")
            await read(turn)
            clock.advance(1.0)
            session.interrupt()
            assert said(session) == ["Nerede?", "Elbette,"]

    async def test_that_was_refused_says_so_then(self) -> None:
        async with calling() as (session, engine):
            turn = session.start_turn("x" * 3000, turn_id="s1", speculative=True)
            await settled(engine)
            session.confirm("s1")
            error, end = await read(turn)
            assert isinstance(error, CallError)
            assert (error.code, end_of([end]).finish_reason) == ("context_too_long", FinishReason.ERROR)
            assert said(session) == []


class TestDiscarded:
    async def test_by_withdrawal_leaves_no_event_and_no_trace(self) -> None:
        observer = Counting()
        backend = GatedBackend(sequences=1, reply=lambda _: LONG_REPLY)
        async with calling(backend, observer=observer) as (session, engine):
            backend.hold(after_tokens=60)
            turn = session.start_turn("Nere", turn_id="s1", speculative=True)
            await backend.held()
            session.withdraw("s1")
            assert session.state is SessionState.LISTENING
            backend.release()
            assert await read(turn) == []
            assert said(session) == []
            assert observer.discarded == 1
            await settled(engine)
            assert backend.open_samplers == 0

    async def test_by_a_newer_turn_leaves_no_event_and_no_trace(self) -> None:
        observer = Counting()
        async with calling(observer=observer) as (session, _):
            first = session.start_turn("Nere", turn_id="s1", speculative=True)
            second = session.start_turn("Nerede", turn_id="s2", speculative=True)
            session.confirm("s2")
            assert await read(first) == []
            assert spoken(await read(second)) == "You said Nerede. That makes 1."
            assert (observer.discarded, observer.barge_ins) == (1, 0)
            assert (await session.end()).turns == 1

    async def test_by_the_end_of_the_call(self) -> None:
        observer = Counting()
        async with calling(observer=observer) as (session, _):
            turn = session.start_turn("Nere", turn_id="s1", speculative=True)
            reading = asyncio.create_task(read(turn))
            await session.end()
            assert await reading == []
            assert observer.discarded == 1

    async def test_by_a_reader_who_leaves(self) -> None:
        async with calling() as (session, _):
            reading = asyncio.create_task(read(session.start_turn("Nere", turn_id="s1", speculative=True)))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            assert said(session) == []
            assert session.state is SessionState.LISTENING


class TestLegal:
    @pytest.mark.parametrize("act", ["confirm", "withdraw"])
    async def test_only_while_it_waits(self, act: str) -> None:
        async with calling() as (session, _):
            settle = getattr(session, act)
            with pytest.raises(WrongStateError):
                settle("s1")
            turn = session.start_turn("Nerede?", turn_id="s1", speculative=True)
            with pytest.raises(WrongStateError):
                settle("s2")
            settle("s1")
            with pytest.raises(WrongStateError):
                settle("s1")
            await read(turn)
            plain = session.start_turn("Peki?", turn_id="t1")
            with pytest.raises(WrongStateError):
                settle("t1")
            await read(plain)

    async def test_id_is_used_once_even_where_it_was_withdrawn(self) -> None:
        async with calling() as (session, _):
            turn = session.start_turn("Nere", turn_id="s1", speculative=True)
            session.withdraw("s1")
            with pytest.raises(InvalidRequestError, match="there before"):
                session.start_turn("Nerede", turn_id="s1")
            await read(turn)
            await read(session.start_turn("Nerede", turn_id="s2"))
            assert said(session)[0] == "Nerede"


class TestBesideAReply:
    async def test_speculation_ends_the_reply_that_runs(self) -> None:
        observer = Counting()
        backend = GatedBackend(sequences=1, reply=lambda p: REPLY if "Dur" in p else LONG_REPLY)
        async with calling(backend, observer=observer) as (session, _):
            backend.hold(after_tokens=60)
            old = session.start_turn("Anlat", turn_id="t1")
            await until_chunk(old)
            await backend.held()
            new = session.start_turn("Dur", turn_id="s1", speculative=True)
            backend.release()
            assert end_of(await read(old)).finish_reason is FinishReason.INTERRUPTED
            session.confirm("s1")
            assert spoken(await read(new)) == REPLY
            assert (observer.barge_ins, observer.discarded) == (1, 0)

    async def test_interruption_concerns_what_could_be_heard(self) -> None:
        observer = Counting()
        async with calling(FakeBackend(sequences=1, reply=lambda _: REPLY), observer=observer) as (session, engine):
            await read(session.start_turn("Nerede?", turn_id="t1"))
            turn = session.start_turn("Peki", turn_id="s1", speculative=True)
            await settled(engine)
            session.interrupt("Elbette")
            assert said(session) == ["Nerede?", "Elbette"]
            session.confirm("s1")
            assert end_of(await read(turn)).finish_reason is FinishReason.STOP
            assert said(session) == ["Nerede?", "Elbette", "Peki", REPLY]
            assert observer.barge_ins == 1

    async def test_hint_during_a_speculation_does_not_disturb_it(self) -> None:
        async with calling() as (session, engine):
            turn = session.start_turn("Nerede", turn_id="s1", speculative=True)
            session.partial("Nerede kal")
            await settled(engine)
            session.confirm("s1")
            assert spoken(await read(turn)) == "You said Nerede. That makes 1."


class TestHint:
    async def test_turn_with_the_very_words_computes_next_to_nothing(self) -> None:
        async with calling() as (session, engine):
            session.partial("Siparişim nerede kaldı?")
            await settled(engine)
            usage = end_of(await read(session.turn("Siparişim nerede kaldı?"))).usage
            assert usage.prompt_tokens - usage.cached_tokens <= 2


class TestBargeIn:
    async def test_is_counted_once_and_not_for_a_reply_that_was_heard(self) -> None:
        clock = VirtualClock()
        observer = Counting()
        backend = FakeBackend(sequences=1, reply=lambda _: REPLY)
        async with calling(backend, clock=clock, observer=observer) as (session, _):
            await read(session.turn("Nerede?"))
            clock.advance(60)
            session.interrupt()
            assert observer.barge_ins == 0
            await read(session.turn("Peki?"))
            session.interrupt()
            session.interrupt()
            assert observer.barge_ins == 1

    async def test_hanging_up_is_none(self) -> None:
        observer = Counting()
        backend = GatedBackend(sequences=1, reply=lambda _: LONG_REPLY)
        async with calling(backend, observer=observer) as (session, _):
            backend.hold(after_tokens=60)
            turn = session.start_turn("Anlat")
            await until_chunk(turn)
            await backend.held()
            backend.release()
            await session.end()
            assert end_of(await read(turn)).finish_reason is FinishReason.INTERRUPTED
            assert observer.barge_ins == 0
