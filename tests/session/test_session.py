"""CallSession: what a caller heard is what the call remembers, whatever happens in between."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, NoReturn

import pytest

from voice_llm.backend import BatchEntry
from voice_llm.config import EngineConfig, SamplingParams
from voice_llm.errors import (
    AtCapacityError,
    BackendError,
    ContextTooLongError,
    EngineDeadError,
    InvalidRequestError,
    WrongStateError,
)
from voice_llm.events import FinishReason, Usage
from voice_llm.prompt import Message
from voice_llm.runtime import Engine, ReplyStream
from voice_llm.session import (
    CallError,
    CallSession,
    CallThought,
    Chunk,
    Ended,
    SessionState,
    TurnEnd,
)
from voice_llm.testing import FakeBackend, VirtualClock

from ..runtime.helpers import GatedBackend, prompts_made, running
from .helpers import calling, end_of, held_text, read, said, settled, spoken, until_chunk

pytestmark = pytest.mark.unit

REPLY = "Elbette, hemen bakıyorum. Siparişiniz yolda. Yarın öğlen sizde olur."
LONG_REPLY = "Bu uzun bir cevap. " * 50


class SteppedBackend(FakeBackend):
    """Once it talks, each decode waits until the test lets it go on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._steps = threading.Semaphore(0)
        self._waits = threading.Semaphore(0)
        self._runs = False

    def decode(self, entries: Sequence[BatchEntry]) -> int:
        if not self._runs and self.counters.sampled_tokens:
            self._waits.release()
            assert self._steps.acquire(timeout=20)
        return super().decode(entries)

    async def stopped(self) -> None:
        assert await asyncio.to_thread(self._waits.acquire, timeout=20)

    def one_step(self) -> None:
        self._steps.release()

    def run(self) -> None:
        self._runs = True
        self._steps.release()


class TestStart:
    async def test_ready_counts_exactly_what_was_computed(self) -> None:
        backend = FakeBackend(sequences=1)
        async with calling(backend, start=False, call_id="c1", system_prompt="Kısa konuş.") as (session, engine):
            before = backend.counters.decoded_tokens
            ready = await session.start()
            assert ready.call_id == "c1"
            assert ready.prefill_ms > 0
            assert held_text(engine) == "<|im_start|>system\nKısa konuş.<|im_end|>\n<|im_start|>user\n"
            assert ready.usage == Usage(len(backend.tokens_of(0)), 0, 0)
            assert backend.counters.decoded_tokens - before == ready.usage.prompt_tokens

    async def test_calls_own_prompt_comes_after_the_profiles_and_shares_its_prefix(self) -> None:
        house_rules = "Nezaketle cevap ver ve kısa konuş."
        profile = {"system_prompt": house_rules}
        async with calling(start=False, profile=profile, system_prompt="Arayan: Ayşe.") as (session, _):
            ready = await session.start()
            assert session.messages == [Message("system", f"{house_rules}\n\nArayan: Ayşe.")]
            assert ready.usage.cached_tokens >= len(house_rules.encode())

    async def test_without_prefill_nothing_is_computed_before_the_first_turn(self) -> None:
        backend = FakeBackend(sequences=1)
        async with calling(backend, start=False, system_prompt="Kısa konuş.") as (session, engine):
            before = backend.counters.decoded_tokens
            assert (await session.start(prefill=False)).usage == Usage()
            await settled(engine)
            assert backend.counters.decoded_tokens == before
            assert end_of(await read(session.turn("Merhaba"))).usage.cached_tokens == 0

    async def test_call_that_goes_on_knows_what_was_said_before(self) -> None:
        earlier = [Message("user", "Merhaba"), Message("assistant", "Buyurun.")]
        async with calling(history=earlier) as (session, _):
            assert spoken(await read(session.turn("Kargom?"))) == "You said Kargom?. That makes 2."
            assert said(session)[:3] == ["Merhaba", "Buyurun.", "Kargom?"]

    async def test_id_is_taken_once_in_a_tenant(self) -> None:
        async with calling(FakeBackend(), call_id="c1", tenant="a") as (_, engine):
            with pytest.raises(WrongStateError, match="already open"):
                await CallSession(engine, call_id="c1", tenant="a").start()
            async with CallSession(engine, call_id="c1", tenant="b") as other:
                await other.start()

    async def test_call_too_many_is_refused_until_one_ends(self) -> None:
        async with calling(FakeBackend(sequences=1)) as (session, engine):
            late = CallSession(engine)
            with pytest.raises(AtCapacityError):
                await late.start()
            await session.end()
            await late.start()
            assert spoken(await read(late.turn("Alo"))) == "You said Alo. That makes 1."
            await late.end()

    async def test_starting_twice_is_refused_and_harmless(self) -> None:
        async with calling() as (session, _):
            with pytest.raises(WrongStateError):
                await session.start()
            assert end_of(await read(session.turn("x"))).finish_reason is FinishReason.STOP

    async def test_call_that_ends_while_it_is_being_opened_holds_no_place(self) -> None:
        async with calling(start=False) as (session, engine):
            starting = asyncio.create_task(session.start())
            await asyncio.sleep(0)
            await session.end()
            with pytest.raises(WrongStateError):
                await starting
            assert engine.health().open_calls == 0

    async def test_opening_prompt_that_does_not_fit_is_refused(self) -> None:
        async with calling(start=False, system_prompt="x" * 3000) as (session, _):
            with pytest.raises(ContextTooLongError):
                await session.start()


class TestTurn:
    async def test_history_grows_and_only_what_is_new_is_computed(self) -> None:
        async with calling(system_prompt="Kısa konuş.") as (session, engine):
            first = await read(session.turn("Merhaba, nasılsın?"))
            await settled(engine)
            second = await read(session.turn("Peki"))
            assert said(session) == [
                "Merhaba, nasılsın?",
                "You said Merhaba, nasılsın?. That makes 1.",
                "Peki",
                "You said Peki. That makes 2.",
            ]
            used, usage = end_of(first).usage, end_of(second).usage
            assert usage.cached_tokens >= used.prompt_tokens + used.completion_tokens - 2

    async def test_what_the_next_turn_begins_with_is_computed_while_the_caller_listens(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=lambda _: "Tamam.")) as (session, engine):
            await read(session.turn("Alo"))
            await settled(engine)
            assert held_text(engine).endswith("<|im_start|>assistant\nTamam.<|im_end|>\n<|im_start|>user\n")

    async def test_chunks_joined_are_the_message_in_the_history(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=lambda _: REPLY)) as (session, _):
            events = await read(session.turn("Nerede?"))
            chunks = [e for e in events if isinstance(e, Chunk)]
            assert [c.index for c in chunks] == list(range(len(chunks)))
            assert [c.final for c in chunks] == [False] * (len(chunks) - 1) + [True]
            assert len(chunks) > 1
            assert spoken(events) == said(session)[-1] == REPLY

    async def test_end_tells_why_how_much_and_how_fast(self) -> None:
        async with calling() as (session, _):
            end = end_of(await read(session.turn("x", params=SamplingParams(max_tokens=3))))
            assert end.finish_reason is FinishReason.LENGTH
            assert end.usage.completion_tokens == 3
            assert end.timings.first_token_ms is not None

    async def test_turns_are_named_by_the_transport_or_counted(self) -> None:
        async with calling() as (session, _):
            assert {e.turn_id for e in await read(session.turn("x")) if isinstance(e, (Chunk, TurnEnd))} == {"t1"}
            named = await read(session.turn("y", turn_id="soru-2"))
            assert {e.turn_id for e in named if isinstance(e, (Chunk, TurnEnd))} == {"soru-2"}

    async def test_thoughts_are_told_apart_and_not_remembered_as_speech(self) -> None:
        backend = FakeBackend(sequences=1, reply=lambda _: "<think>Kısa tut.</think>Tamam.")
        async with calling(backend) as (session, _):
            events = await read(session.turn("x"))
            assert "".join(e.text for e in events if isinstance(e, CallThought)) == "Kısa tut."
            assert spoken(events) == said(session)[-1] == "Tamam."

    async def test_text_retrieved_for_a_question_stays_in_the_history(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=lambda _: REPLY)) as (session, engine):
            first = end_of(await read(session.turn("Nerede?", rag_context="Kargo 17 yolda."))).usage
            await settled(engine)
            second = end_of(await read(session.turn("Ne zaman?"))).usage
            assert session.messages[0].rag_context == "Kargo 17 yolda."
            assert held_text(engine).count("Kargo 17 yolda.") == 1
            assert second.cached_tokens >= first.prompt_tokens + first.completion_tokens - 2

    async def test_new_context_counts_from_the_next_turn_on(self) -> None:
        prompts: list[str] = []

        def reply(prompt: str) -> str:
            prompts.append(prompt)
            return REPLY

        async with calling(FakeBackend(sequences=1, reply=reply), rag_context="Bakiye 10.") as (session, _):
            turn = session.turn("Bakiyem?")
            await until_chunk(turn)
            session.set_context("Bakiye 20.")
            await read(turn)
            assert all("Bakiye 10." in p and "Bakiye 20." not in p for p in prompts)
            prompts.clear()
            await read(session.turn("Ya şimdi?"))
            assert prompts
            assert all("Bakiye 20." in p and "Bakiye 10." not in p for p in prompts)

    async def test_new_context_is_prefilled_before_the_next_turn(self) -> None:
        backend = FakeBackend(sequences=1)
        async with calling(backend, rag_context="Bakiye 10.") as (session, _):
            session.set_context("Bakiye 20. " * 8)
            await session._hints.wait()
            end = end_of(await read(session.turn("Kaç?")))
            assert end.usage.cached_tokens > len(b"Bakiye 20. ") * 8

    async def test_failed_step_ends_the_turn_and_the_next_one_works(self) -> None:
        backend = FakeBackend(sequences=1)
        async with calling(backend) as (session, _):
            backend.fail_next(BackendError("out of luck"))
            error, end = await read(session.turn("Merhaba"))
            assert isinstance(error, CallError)
            assert (error.code, error.turn_id, error.fatal) == ("internal", "t1", False)
            assert "luck" not in error.message, "an internal error's detail is nobody's business on the other side"
            assert isinstance(end, TurnEnd)
            assert end.finish_reason is FinishReason.ERROR
            assert session.state is SessionState.LISTENING
            assert spoken(await read(session.turn("Alo?"))) == "You said Alo?. That makes 2."

    async def test_reply_that_fails_half_way_is_remembered_as_far_as_it_was_sent(self) -> None:
        backend = GatedBackend(sequences=1, reply=lambda _: REPLY)
        async with calling(backend) as (session, _):
            backend.hold(after_tokens=30)
            turn = session.turn("Nerede?")
            sent = await until_chunk(turn)
            await backend.held()
            backend.fail_next(BackendError("out of luck"))
            backend.release()
            rest = await read(turn)
            assert [type(e) for e in rest] == [CallError, TurnEnd]
            assert said(session) == ["Nerede?", spoken(sent).strip()]

    @pytest.mark.parametrize(
        ("text", "code"),
        [("x" * 3000, "context_too_long"), ("yarım \ud83d harf", "invalid_request")],
        ids=["too-long", "not-unicode"],
    )
    async def test_question_that_is_refused_leaves_the_call_as_it_was(self, text: str, code: str) -> None:
        async with calling(history=[Message("user", "Alo"), Message("assistant", "Buyurun.")]) as (session, _):
            error, end = await read(session.turn(text))
            assert isinstance(error, CallError)
            assert (error.code, error.fatal) == (code, False)
            assert isinstance(end, TurnEnd)
            assert end.finish_reason is FinishReason.ERROR
            session.interrupt()
            assert said(session) == ["Alo", "Buyurun."]
            assert spoken(await read(session.turn("Kısaca?"))) == "You said Kısaca?. That makes 2."

    @pytest.mark.parametrize("speculative", [False, True])
    async def test_turns_that_failed_leave_nothing_behind(self, *, speculative: bool) -> None:
        def streams() -> int:
            gc.collect()
            return sum(type(each) is ReplyStream for each in gc.get_objects())

        before = streams()
        async with calling() as (session, engine):
            for number in range(20):
                turn = session.start_turn("x" * 3000, turn_id=f"t{number}", speculative=speculative)
                if speculative:
                    await prompts_made(engine)
                    session.withdraw(f"t{number}")
                await read(turn)
            await session.start_turn("Alo").aclose()
            del turn
            assert streams() <= before + 2

    async def test_message_of_an_error_is_short(self) -> None:
        class Quoting(FakeBackend):
            def new_sampler(self, *_: Any, **__: Any) -> NoReturn:
                raise InvalidRequestError("y" * 5000)

        async with calling(Quoting(sequences=1)) as (session, _):
            error, _end = await read(session.turn("Alo"))
            assert isinstance(error, CallError)
            assert error.message == "y" * 500

    async def test_history_is_kept_as_far_as_a_prompt_can_hold_it(self) -> None:
        small = {"engine": EngineConfig(context_per_call=64)}
        async with calling(FakeBackend(sequences=1, reply=lambda _: "Tamam."), profile=small) as (session, _):
            for _number in range(30):
                await read(session.turn("x" * 100))
            assert len(said(session)) < 10
            assert said(session)[-2:] == ["x" * 100, "Tamam."]

    async def test_dead_engine_ends_the_turn_and_refuses_the_next(self) -> None:
        backend = GatedBackend()
        async with running(backend) as engine:
            session = CallSession(engine)
            await session.start()
            backend.fatal = SystemExit()
            error, end = await read(session.turn("x"))
            assert isinstance(error, CallError)
            assert error.code == "internal"
            assert isinstance(end, TurnEnd)
            with pytest.raises(EngineDeadError):
                await read(session.turn("y"))
            assert said(session) == ["x"]
            await session.end()


class TestPartial:
    async def test_words_already_spoken_are_in_the_cache_when_the_turn_comes(self) -> None:
        async with calling(start=False, rag_context="Kargo 17 yolda.") as (session, engine):
            ready = await session.start()
            session.partial("Siparişim")
            session.partial("Siparişim nerede")
            await settled(engine)
            events = await read(session.turn("Siparişim nerede kaldı?"))
            assert end_of(events).usage.cached_tokens == ready.usage.prompt_tokens + len("Siparişim nerede".encode())
            assert spoken(events) == "You said Siparişim nerede kaldı?. That makes 1."

    async def test_transcript_that_changes_is_rolled_back(self) -> None:
        async with calling(start=False) as (session, engine):
            ready = await session.start()
            session.partial("Param nerede")
            await settled(engine)
            session.partial("Param niye")
            await settled(engine)
            events = await read(session.turn("Param niye yok?"))
            assert end_of(events).usage.cached_tokens == ready.usage.prompt_tokens + len("Param niye")
            assert spoken(events) == "You said Param niye yok?. That makes 1."

    async def test_turn_right_behind_many_hints_makes_them_void(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "voice_llm")
        async with calling() as (session, _):
            words = ["bu", "uzun", "bir", "cümle", "ve", "hiç", "bitmiyor"]
            for count in range(len(words)):
                session.partial(" ".join(words[:count]))
                await asyncio.sleep(0)
            events = await read(session.turn(" ".join(words)))
            assert spoken(events) == f"You said {' '.join(words)}. That makes 1."
            assert caplog.messages == [], "no hint was sent on its way behind the turn"

    async def test_words_spoken_over_a_reply_do_not_disturb_it(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=lambda _: REPLY)) as (session, _):
            turn = session.turn("Nerede?")
            sent = await until_chunk(turn)
            session.partial("Bir dakika")
            rest = await read(turn)
            assert spoken([*sent, *rest]) == REPLY
            assert said(session) == ["Nerede?", REPLY]

    async def test_hint_that_does_not_fit_is_not_the_callers_problem(self, caplog: pytest.LogCaptureFixture) -> None:
        async with calling() as (session, engine):
            session.partial("x" * 3000)
            await settled(engine)
            assert end_of(await read(session.turn("Kısaca"))).finish_reason is FinishReason.STOP
        gc.collect()
        assert caplog.messages == [], "no task failed unseen"


# REPLY comes in the chunks "Elbette, hemen bakıyorum. ", "Siparişiniz yolda. " and "Yarın öğlen sizde olur.";
# the voice speaks ten characters a second.
def report(index: int, played_ms: int) -> Callable[[CallSession, VirtualClock], None]:
    def hear(session: CallSession, clock: VirtualClock) -> None:
        clock.advance(60)
        session.played("t1", index, played_ms)
        session.interrupt()

    return hear


def wait(seconds: float) -> Callable[[CallSession, VirtualClock], None]:
    def hear(session: CallSession, clock: VirtualClock) -> None:
        clock.advance(seconds)
        session.interrupt()

    return hear


def quote(text: str) -> Callable[[CallSession, VirtualClock], None]:
    def hear(session: CallSession, clock: VirtualClock) -> None:
        clock.advance(60)
        session.played("t1", 0, 2500)
        session.interrupt(text)

    return hear


HEARD = pytest.mark.parametrize(
    ("hear", "heard"),
    [
        (wait(0), ""),
        (wait(1.5), "Elbette, hemen"),
        (report(0, 900), "Elbette,"),
        (report(0, 0), ""),
        (quote("Elbette"), "Elbette"),
        (quote(""), ""),
    ],
    ids=["at-once", "by-speaking-rate", "in-first-word", "nothing-played", "quoted", "quoted-nothing"],
)


class TestInterrupt:
    async def check_next_prompt(self, session: CallSession, engine: Engine, heard: str) -> None:
        """History and next prompt hold what was heard, and nothing else of the reply."""
        messages = said(session)
        assert messages == ["Nerede?", *([heard] if heard else [])]
        assert end_of(await read(session.turn("Efendim?"))).finish_reason is FinishReason.STOP
        await settled(engine)
        held = held_text(engine)
        before, _, _ = held.partition("Efendim?")
        reply = f"<|im_start|>assistant\n{heard}<|im_end|>\n" if heard else ""
        assert before == f"<|im_start|>user\nNerede?<|im_end|>\n{reply}<|im_start|>user\n"

    @HEARD
    async def test_in_the_first_chunk_keeps_only_what_was_heard(
        self, hear: Callable[[CallSession, VirtualClock], None], heard: str
    ) -> None:
        clock = VirtualClock()
        backend = FakeBackend(sequences=1, reply=lambda _: REPLY)
        async with calling(backend, clock=clock, profile={"speaking_rate_chars_per_s": 10}) as (session, engine):
            turn = session.turn("Nerede?")
            assert (await until_chunk(turn))[0].text == "Elbette, hemen bakıyorum. "
            hear(session, clock)
            end = end_of(await read(turn))
            assert end.finish_reason is FinishReason.INTERRUPTED
            await self.check_next_prompt(session, engine, heard)

    @HEARD
    @pytest.mark.parametrize("chunks", [2, 3], ids=["two-chunks", "whole-reply"])
    async def test_later_keeps_only_what_was_heard(
        self, hear: Callable[[CallSession, VirtualClock], None], heard: str, chunks: int
    ) -> None:
        """All of the reply may have been sent, and even read, long before the caller has heard it."""
        clock = VirtualClock()
        backend = FakeBackend(sequences=1, reply=lambda _: REPLY)
        async with calling(backend, clock=clock, profile={"speaking_rate_chars_per_s": 10}) as (session, engine):
            turn = session.turn("Nerede?")
            await until_chunk(turn, chunks)
            if chunks == 3:
                assert end_of(await read(turn)).finish_reason is FinishReason.STOP
            hear(session, clock)
            await read(turn)
            await self.check_next_prompt(session, engine, heard)

    async def test_the_calls_language_says_how_much_was_heard_by_now(self) -> None:
        clock = VirtualClock()
        backend = FakeBackend(sequences=1, reply=lambda _: REPLY)
        profile = {"speaking_rate_chars_per_s": {"default": 100, "tr": 10}}
        async with calling(backend, clock=clock, profile=profile, language="tr-TR") as (session, engine):
            turn = session.turn("Nerede?")
            await until_chunk(turn)
            clock.advance(1.5)
            session.interrupt()
            await read(turn)
            await self.check_next_prompt(session, engine, "Elbette, hemen")

    async def test_reports_reach_over_several_chunks(self) -> None:
        clock = VirtualClock()
        backend = FakeBackend(sequences=1, reply=lambda _: REPLY)
        async with calling(backend, clock=clock, profile={"speaking_rate_chars_per_s": 10}) as (session, engine):
            turn = session.turn("Nerede?")
            await until_chunk(turn, 2)
            session.played("t1", 1, 1200)
            with pytest.raises(WrongStateError):
                session.played("another turn", 7, 0)
            session.interrupt()
            await read(turn)
            await self.check_next_prompt(session, engine, "Elbette, hemen bakıyorum. Siparişiniz")

    async def test_nothing_is_spoken_after_it_even_where_it_was_ready(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=lambda _: REPLY)) as (session, engine):
            turn = session.turn("Nerede?")
            await until_chunk(turn)
            await settled(engine)  # the whole reply waits to be read now
            session.interrupt()
            (end,) = await read(turn)
            assert isinstance(end, TurnEnd)
            assert end.finish_reason is FinishReason.INTERRUPTED

    async def test_another_one_later_adds_nothing_to_what_was_heard(self) -> None:
        clock = VirtualClock()
        backend = FakeBackend(sequences=1, reply=lambda _: REPLY)
        async with calling(backend, clock=clock, profile={"speaking_rate_chars_per_s": 10}) as (session, _):
            turn = session.turn("Nerede?")
            await until_chunk(turn)
            clock.advance(1.5)
            session.interrupt()
            clock.advance(60)
            session.interrupt()
            await read(turn)
            session.interrupt()
            assert said(session) == ["Nerede?", "Elbette, hemen"]
            session.interrupt("Elbette")
            assert said(session) == ["Nerede?", "Elbette"]

    async def test_before_the_first_token_ends_the_turn_at_once(self) -> None:
        backend = GatedBackend(sequences=1, reply=lambda _: LONG_REPLY)
        async with calling(backend) as (session, _):
            backend.hold()
            reading = asyncio.create_task(read(session.turn("Nerede?")))
            await backend.held()
            session.interrupt()
            assert session.state is SessionState.LISTENING
            backend.release()
            (end,) = await reading
            assert isinstance(end, TurnEnd)
            assert end.finish_reason is FinishReason.INTERRUPTED
            assert end.usage.completion_tokens <= 1
            assert said(session) == ["Nerede?"]

    async def test_stops_the_generation(self) -> None:
        backend = GatedBackend(sequences=1, reply=lambda _: LONG_REPLY)
        async with calling(backend) as (session, engine):
            backend.hold(after_tokens=40)
            turn = session.turn("Anlat")
            await until_chunk(turn)
            await backend.held()
            session.interrupt()
            backend.release()
            assert end_of(await read(turn)).usage.completion_tokens <= 41
            await settled(engine)

    async def test_what_was_heard_is_not_computed_again(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=lambda _: REPLY)) as (session, engine):
            turn = session.turn("Nerede?")
            await until_chunk(turn)
            session.interrupt("Elbette, hemen")
            used = end_of(await read(turn)).usage
            await settled(engine)
            usage = end_of(await read(session.turn("Efendim?"))).usage
            assert usage.cached_tokens >= used.prompt_tokens + len("Elbette, hemen")

    async def test_without_a_turn_it_is_harmless(self) -> None:
        async with calling(history=[Message("user", "Alo"), Message("assistant", "Buyurun.")]) as (session, _):
            session.interrupt("Bu")
            assert said(session) == ["Alo", "Buyurun."]


class TestSupersede:
    async def test_newer_turn_ends_the_running_one(self) -> None:
        backend = GatedBackend(sequences=1, reply=lambda p: "Peki." if "Dur" in p else LONG_REPLY)
        async with calling(backend) as (session, _):
            backend.hold(after_tokens=40)
            old = session.turn("Anlat", turn_id="old")
            chunks = await until_chunk(old)
            await backend.held()
            session.played("old", 0, 60_000)
            new = asyncio.create_task(read(session.turn("Dur", turn_id="new")))
            await asyncio.sleep(0)
            backend.release()
            (end,) = await read(old)
            assert isinstance(end, TurnEnd)
            assert (end.turn_id, end.finish_reason) == ("old", FinishReason.INTERRUPTED)
            assert (spoken(await new), end_of(await new).turn_id) == ("Peki.", "new")
            assert said(session) == ["Anlat", spoken(chunks).strip(), "Dur", "Peki."]

    async def test_many_turns_at_once_leave_one_reply_and_no_refusal(self) -> None:
        async with calling(clock=VirtualClock()) as (session, _):
            turns = [asyncio.create_task(read(session.turn(f"soru {i}"))) for i in range(20)]
            results = await asyncio.gather(*turns)
            assert [end_of(r).finish_reason for r in results] == [FinishReason.INTERRUPTED] * 19 + [FinishReason.STOP]
            assert not any(isinstance(e, CallError) for r in results for e in r)
            assert said(session) == [*(f"soru {i}" for i in range(20)), "You said soru 19. That makes 20."]


class TestLeaving:
    async def test_reader_who_leaves_stops_the_reply_and_what_was_sent_stays(self) -> None:
        backend = GatedBackend(sequences=1, reply=lambda p: "Peki." if "Dur" in p else LONG_REPLY)
        async with calling(backend) as (session, engine):
            backend.hold(after_tokens=40)
            async with aclosing(session.turn("Anlat")) as turn:
                chunks = await until_chunk(turn)
                await backend.held()
            assert session.state is SessionState.LISTENING
            so_far = backend.counters.sampled_tokens
            backend.release()
            await settled(engine)
            assert backend.open_samplers == 0
            assert backend.counters.sampled_tokens <= so_far + 1
            assert spoken(await read(session.turn("Dur"))) == "Peki."
            assert said(session) == ["Anlat", spoken(chunks).strip(), "Dur", "Peki."]

    async def test_plain_break_is_enough(self) -> None:
        backend = FakeBackend(sequences=1, reply=lambda p: "Peki." if "Dur" in p else LONG_REPLY)
        async with calling(backend) as (session, engine):
            async for _ in session.turn("Anlat"):
                break
            await settled(engine)
            assert session.state is SessionState.LISTENING
            assert backend.open_samplers == 0
            assert spoken(await read(session.turn("Dur"))) == "Peki."

    async def test_next_turn_may_follow_a_break_at_once(self) -> None:
        backend = FakeBackend(sequences=1, reply=lambda p: "Peki." if "Dur" in p else LONG_REPLY)
        async with calling(backend) as (session, _):
            async for _ in session.turn("Anlat"):
                break
            assert spoken(await read(session.turn("Dur"))) == "Peki."
            assert said(session)[-2:] == ["Dur", "Peki."]

    async def test_cancelled_task_stops_the_reply(self) -> None:
        backend = GatedBackend(sequences=1, reply=lambda p: "Peki." if "Dur" in p else LONG_REPLY)
        async with calling(backend) as (session, engine):
            backend.hold(after_tokens=40)
            reading = asyncio.create_task(read(session.turn("Anlat")))
            await backend.held()
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert session.state is SessionState.LISTENING
            backend.release()
            await settled(engine)
            assert backend.open_samplers == 0
            assert spoken(await read(session.turn("Dur"))) == "Peki."


OPERATIONS: dict[str, Callable[[CallSession], Any]] = {
    "turn": lambda s: read(s.turn("x")),
    "partial": lambda s: s.partial("x"),
    "played": lambda s: s.played("t1", 0, 0),
    "interrupt": lambda s: s.interrupt(),
    "context": lambda s: s.set_context("x"),
}


class TestEnd:
    async def test_tells_what_the_call_was(self) -> None:
        clock = VirtualClock()
        async with calling(clock=clock) as (session, _):
            ends = [end_of(await read(session.turn(text))) for text in ("bir", "iki")]
            clock.advance(30)
            ended = await session.end("hangup")
            assert ended == Ended("hangup", 2, ends[0].usage + ends[1].usage, 30.0)

    async def test_in_mid_reply_frees_everything_and_the_reader_hears_of_it(self) -> None:
        backend = GatedBackend(sequences=1, reply=lambda _: LONG_REPLY)
        async with calling(backend) as (session, engine):
            backend.hold(after_tokens=40)
            reading = asyncio.create_task(read(session.turn("Anlat")))
            await backend.held()
            ending = asyncio.create_task(session.end("hangup"))
            await asyncio.sleep(0)
            backend.release()
            ended, events = await ending, await reading
            assert end_of(events).finish_reason is FinishReason.INTERRUPTED
            assert ended.usage == end_of(events).usage
            assert 40 <= ended.usage.completion_tokens <= 41
            assert engine.health().open_calls == 0
            assert backend.open_samplers == 0

    async def test_between_two_chunks_by_the_reader_itself(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=lambda _: LONG_REPLY)) as (session, _):
            async for event in session.turn("Anlat"):
                if isinstance(event, Chunk):
                    assert (await session.end()).usage.completion_tokens > 0
                else:
                    assert isinstance(event, TurnEnd)
                    assert event.finish_reason is FinishReason.INTERRUPTED

    async def test_counts_the_tokens_of_a_reply_whose_end_is_still_on_its_way(self) -> None:
        """The engine is free of the call before the next step, busy with another one, tells what the call used."""
        backend = SteppedBackend(sequences=2, reply=lambda _: LONG_REPLY)
        async with calling(backend) as (session, engine), CallSession(engine) as other:
            await other.start()
            readers = [asyncio.create_task(read(s.turn("Anlat"))) for s in (session, other)]
            await prompts_made(engine)
            for _ in range(5):
                await backend.stopped()
                backend.one_step()
            await backend.stopped()
            ending = asyncio.create_task(session.end())
            await asyncio.sleep(0)
            backend.one_step()
            await backend.stopped()
            for _ in range(10):
                await asyncio.sleep(0)
            backend.run()
            ended = await ending
            assert ended.usage == end_of(await readers[0]).usage
            assert ended.usage.completion_tokens > 0
            await readers[1]

    async def test_counts_the_tokens_of_replies_that_nobody_read_to_the_end(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=lambda _: LONG_REPLY)) as (session, engine):
            async with aclosing(session.turn("Anlat")) as turn:
                await until_chunk(turn)
            await settled(engine)
            assert (await session.end()).usage.completion_tokens > len("Bu uzun bir cevap.")

    async def test_twice_is_harmless_and_before_start_too(self) -> None:
        async with calling(start=False) as (session, engine):
            assert (await session.end()).turns == 0
            assert (await session.end()).turns == 0
            assert session.state is SessionState.ENDED
            with pytest.raises(WrongStateError):
                await session.start()
            assert engine.health().open_calls == 0

    @pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
    async def test_before_start_and_after_the_end_nothing_else_is_legal(
        self, operation: Callable[[CallSession], Awaitable[object] | None]
    ) -> None:
        async with calling(start=False) as (session, _):
            for state in (SessionState.NEW, SessionState.ENDED):
                assert session.state is state
                with pytest.raises(WrongStateError, match=f"the call is {state.value}"):
                    await (operation(session) or asyncio.sleep(0))
                await session.end()
            assert session.messages == []

    async def test_leaving_the_block_ends_the_call_whatever_happened(self) -> None:
        async with calling(start=False) as (session, engine):
            await session.start()
            with pytest.raises(LookupError):
                async with session:
                    raise LookupError
            assert session.state is SessionState.ENDED
            assert engine.health().open_calls == 0
