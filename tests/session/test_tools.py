"""A turn that asks for tools stays one turn until its last word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from voice_llm.config import SamplingParams, StructuralTags
from voice_llm.errors import BackendError, InvalidRequestError, WrongStateError
from voice_llm.events import FinishReason, Usage
from voice_llm.prompt import Message, Tool
from voice_llm.session import CallError, CallSession, CallToolCall, Chunk, SessionEvent, to_json
from voice_llm.testing import FakeBackend, VirtualClock
from voice_llm.testing.backend import FakeSampler

from .helpers import calling, end_of, held_text, read, said, settled, spoken

pytestmark = pytest.mark.unit

LOOK_UP = Tool("look_up", "Siparişe bakar.", {"properties": {"number": {"type": "number"}}})


def call_of(number: float) -> str:
    return f'<tool_call>{{"name":"look_up","arguments":{{"number":{number}}}}}</tool_call>'


def looks_up_first(prompt: str) -> str:
    if "</tool_response>" in prompt:
        return "Yarın sizde olur. Başka sorunuz var mı?"
    return "Hemen bakıyorum. " + call_of(17)


class Recording(FakeBackend):
    """Remembers which tools each round might ask for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(sequences=1, **options)
        self.tags: list[StructuralTags | None] = []

    def new_sampler(self, params: SamplingParams, tags: StructuralTags | None = None) -> FakeSampler:
        self.tags.append(tags)
        return super().new_sampler(params, tags)


class Reading:
    """A turn that is read in the background; ``tools`` waits for so many tool calls."""

    def __init__(self, events: AsyncGenerator[SessionEvent, None]) -> None:
        self.events: list[SessionEvent] = []
        self._task = asyncio.create_task(self._read(events))
        self._news = asyncio.Event()

    async def _read(self, events: AsyncGenerator[SessionEvent, None]) -> None:
        async for event in events:
            self.events.append(event)
            self._news.set()

    async def tools(self, count: int = 1) -> list[CallToolCall]:
        while len(calls := [e for e in self.events if isinstance(e, CallToolCall)]) < count:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 20)
        return calls

    async def rest(self) -> list[SessionEvent]:
        await asyncio.wait_for(self._task, 20)
        return self.events


def chunks(events: list[SessionEvent]) -> list[Chunk]:
    return [e for e in events if isinstance(e, Chunk)]


class TestRound:
    async def test_turn_goes_on_with_the_results_and_ends_once(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=looks_up_first), tools=[LOOK_UP]) as (session, engine):
            turn = Reading(session.start_turn("Nerede?"))
            [call] = await turn.tools()
            assert (call.turn_id, call.name, call.arguments) == ("t1", "look_up", {"number": 17})
            session.tool_result(call.tool_call_id, {"status": "yolda"})
            events = await turn.rest()
            told = chunks(events)
            assert [c.index for c in told] == list(range(len(told)))
            assert [c.final for c in told] == [False] * (len(told) - 1) + [True]
            assert spoken(events) == "Hemen bakıyorum. Yarın sizde olur. Başka sorunuz var mı?"
            assert end_of(events).finish_reason is FinishReason.STOP
            assert [m.role for m in session.messages] == ["user", "assistant", "tool", "assistant"]
            assert session.messages[1].tool_calls[0].tool_call_id == call.tool_call_id
            assert session.messages[2] == Message("tool", '{"status": "yolda"}', tool_call_id=call.tool_call_id)
            await settled(engine)
            assert '{"status": "yolda"}' in held_text(engine)

    async def test_usage_is_the_sum_and_times_count_from_the_question(self) -> None:
        clock = VirtualClock()
        backend = FakeBackend(sequences=1, reply=looks_up_first, clock=clock)
        async with calling(backend, clock=clock, tools=[LOOK_UP]) as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            [call] = await turn.tools()
            first_round = [s.finished.usage for s in session._usage._uncounted if s.finished]
            clock.advance(3.0)
            session.tool_result(call.tool_call_id, "yolda")
            end = end_of(await turn.rest())
            assert end.usage.completion_tokens > first_round[0].completion_tokens
            assert end.usage.prompt_tokens > 2 * first_round[0].prompt_tokens
            assert (await session.end()).usage == end.usage
            timings = end.timings
            assert timings.first_chunk_ms is not None
            assert timings.first_token_ms is not None
            assert timings.total_ms is not None
            assert timings.first_token_ms <= timings.first_chunk_ms < 3000 < timings.total_ms

    async def test_only_what_is_new_is_computed_in_the_second_round(self) -> None:
        backend = FakeBackend(sequences=1, reply=looks_up_first)
        async with calling(backend, tools=[LOOK_UP]) as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            [call] = await turn.tools()
            used = next(s.finished.usage for s in session._usage._uncounted if s.finished)
            session.tool_result(call.tool_call_id, "yolda")
            usage = end_of(await turn.rest()).usage
            assert usage.cached_tokens - used.cached_tokens >= used.prompt_tokens + used.completion_tokens - 2

    async def test_words_before_a_call_come_before_the_call_is_made(self) -> None:
        """They are spoken while the model still writes the call."""
        async with calling(FakeBackend(sequences=1, reply=looks_up_first), tools=[LOOK_UP]) as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            await turn.tools()
            first, *_ = turn.events
            assert isinstance(first, Chunk)
            assert (first.text, first.final) == ("Hemen bakıyorum. ", False)

    async def test_new_context_waits_for_the_next_turn(self) -> None:
        prompts: list[str] = []

        def reply(prompt: str) -> str:
            prompts.append(prompt)
            return looks_up_first(prompt)

        backend = FakeBackend(sequences=1, reply=reply)
        async with calling(backend, tools=[LOOK_UP], rag_context="Bakiye 10.") as (session, _):
            turn = Reading(session.start_turn("Kaç?"))
            [call] = await turn.tools()
            session.set_context("Bakiye 20.")
            session.tool_result(call.tool_call_id, "yolda")
            await turn.rest()
            assert all("Bakiye 10." in prompt and "Bakiye 20." not in prompt for prompt in prompts)
            await read(session.turn("Ya şimdi?"))
            assert "Bakiye 20." in prompts[-1]

    async def test_all_results_are_waited_for_in_any_order(self) -> None:
        def reply(prompt: str) -> str:
            return f"{prompt.count('</tool_response>')} sonuç." if "response" in prompt else call_of(1) + call_of(2.50)

        async with calling(FakeBackend(sequences=1, reply=reply), tools=[LOOK_UP]) as (session, engine):
            turn = Reading(session.start_turn("Hangisi?"))
            first, second = await turn.tools(2)
            session.tool_result(second.tool_call_id, "iki")
            await settled(engine)
            assert chunks(turn.events) == []
            session.tool_result(first.tool_call_id, "bir")
            assert spoken(await turn.rest()) == "2 sonuç."
            assert [m.content for m in session.messages if m.role == "tool"] == ["bir", "iki"]

    async def test_forced_choice_is_met_by_the_first_round(self) -> None:
        backend = Recording(reply=looks_up_first)
        async with calling(backend, tools=[LOOK_UP], tool_choice="required") as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            [call] = await turn.tools()
            session.tool_result(call.tool_call_id, "yolda")
            await turn.rest()
            assert [tags.at_once for tags in backend.tags if tags is not None] == [True, False]

    async def test_turn_may_do_without_the_calls_tools(self) -> None:
        backend = Recording(reply=lambda _: "Tamam.")
        async with calling(backend, tools=[LOOK_UP]) as (session, _):
            await read(session.turn("Nerede?", tool_choice="none"))
            await read(session.turn("Nerede?"))
            assert [tags is None for tags in backend.tags] == [True, False]

    async def test_reply_that_asks_for_ever_has_to_speak_in_the_end(self) -> None:
        backend = Recording(reply=lambda p: "Peki." if p.count("</tool_response>") >= 8 else call_of(1))
        async with calling(backend, tools=[LOOK_UP]) as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            for count in range(1, 9):
                calls = await turn.tools(count)
                session.tool_result(calls[-1].tool_call_id, count)
            assert spoken(await turn.rest()) == "Peki."
            assert [tags is None for tags in backend.tags] == [False] * 8 + [True]


class TestResult:
    async def test_counts_once_and_only_for_an_open_call(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=looks_up_first), tools=[LOOK_UP]) as (session, _):
            with pytest.raises(WrongStateError):
                session.tool_result("call_x", 1)
            turn = Reading(session.start_turn("Nerede?"))
            [call] = await turn.tools()
            with pytest.raises(WrongStateError):
                session.tool_result("call_x", 1)
            session.tool_result(call.tool_call_id, 1)
            with pytest.raises(WrongStateError):
                session.tool_result(call.tool_call_id, 2)
            await turn.rest()
            assert session.messages[2].content == "1"
            with pytest.raises(WrongStateError):
                session.tool_result(call.tool_call_id, 3)

    @pytest.mark.parametrize("result", [float("nan"), {1, 2}, "yarım \ud83d"], ids=str)
    async def test_that_is_no_json_is_refused_and_still_waited_for(self, result: Any) -> None:
        async with calling(FakeBackend(sequences=1, reply=looks_up_first), tools=[LOOK_UP]) as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            [call] = await turn.tools()
            with pytest.raises(InvalidRequestError):
                session.tool_result(call.tool_call_id, result)
            session.tool_result(call.tool_call_id, "yolda")
            assert end_of(await turn.rest()).finish_reason is FinishReason.STOP

    async def test_that_does_not_fit_ends_the_turn_but_not_the_call(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=looks_up_first), tools=[LOOK_UP]) as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            [call] = await turn.tools()
            session.tool_result(call.tool_call_id, "x" * 3000)
            events = await turn.rest()
            [error] = [e for e in events if isinstance(e, CallError)]
            assert (error.code, error.turn_id) == ("context_too_long", "t1")
            assert end_of(events).finish_reason is FinishReason.ERROR
            assert said(session) == ["Nerede?", "Hemen bakıyorum."]
            assert end_of(events).usage != Usage()
            turn = Reading(session.start_turn("Tekrar?"))
            [call] = await turn.tools()
            session.tool_result(call.tool_call_id, "yolda")
            assert end_of(await turn.rest()).finish_reason is FinishReason.STOP

    async def test_after_which_the_engine_fails_stays_in_the_history(self) -> None:
        backend = FakeBackend(sequences=1, reply=looks_up_first)
        async with calling(backend, tools=[LOOK_UP]) as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            [call] = await turn.tools()
            backend.fail_next(BackendError("out of luck"))
            session.tool_result(call.tool_call_id, "yolda")
            assert end_of(await turn.rest()).finish_reason is FinishReason.ERROR
            assert said(session) == ["Nerede?", "Hemen bakıyorum.", "yolda"]


class TestInterruption:
    async def test_while_tools_are_open_keeps_the_words_and_drops_the_calls(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=looks_up_first), tools=[LOOK_UP]) as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            [call] = await turn.tools()
            session.interrupt("Hemen bakıyorum.")
            assert end_of(await turn.rest()).finish_reason is FinishReason.INTERRUPTED
            assert session.messages == [Message("user", "Nerede?"), Message("assistant", "Hemen bakıyorum.")]
            with pytest.raises(WrongStateError):
                session.tool_result(call.tool_call_id, 1)

    async def test_newer_turn_while_tools_are_open_keeps_what_was_answered(self) -> None:
        def reply(prompt: str) -> str:
            return "Peki." if "Boşver" in prompt else call_of(1) + call_of(2)

        async with calling(FakeBackend(sequences=1, reply=reply), tools=[LOOK_UP]) as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            first, _ = await turn.tools(2)
            session.tool_result(first.tool_call_id, "bir")
            assert spoken(await read(session.turn("Boşver"))) == "Peki."
            assert end_of(await turn.rest()).finish_reason is FinishReason.INTERRUPTED
            assert [(m.role, m.content, len(m.tool_calls)) for m in session.messages] == [
                ("user", "Nerede?", 0),
                ("assistant", "", 1),
                ("tool", "bir", 0),
                ("user", "Boşver", 0),
                ("assistant", "Peki.", 0),
            ]

    @pytest.mark.parametrize(
        ("heard", "messages"),
        [
            ("Hemen", ["Nerede?", "Hemen", "yolda"]),
            ("Hemen bakıyorum. Yarın", ["Nerede?", "Hemen bakıyorum.", "yolda", "Yarın"]),
            ("", ["Nerede?", "", "yolda"]),
            ("tamamen başka", ["Nerede?", "tamamen başka", "yolda"]),
        ],
    )
    async def test_after_the_results_what_was_heard_stands_where_it_was_said(
        self, heard: str, messages: list[str]
    ) -> None:
        async with calling(FakeBackend(sequences=1, reply=looks_up_first), tools=[LOOK_UP]) as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            [call] = await turn.tools()
            session.tool_result(call.tool_call_id, "yolda")
            await turn.rest()
            session.interrupt(heard)
            assert said(session) == messages

    async def test_end_while_tools_are_open_ends_the_turn(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=looks_up_first), tools=[LOOK_UP]) as (session, _):
            turn = Reading(session.start_turn("Nerede?"))
            await turn.tools()
            await session.end()
            assert end_of(await turn.rest()).finish_reason is FinishReason.INTERRUPTED


class TestOpening:
    async def test_tools_are_in_the_prompt_from_the_first_ring_on(self) -> None:
        async with calling(FakeBackend(sequences=1, reply=looks_up_first), tools=[LOOK_UP]) as (_, engine):
            assert "look_up" in held_text(engine)

    async def test_choice_without_a_tool_is_refused(self) -> None:
        async with calling() as (session, engine):
            with pytest.raises(InvalidRequestError, match="tool_choice"):
                CallSession(engine, tool_choice="required")
            with pytest.raises(InvalidRequestError, match="tool_choice"):
                session.start_turn("x", tool_choice="look_up")
            assert said(session) == []


def test_arguments_reach_json_as_they_are() -> None:
    arguments = {"exact": 0.123456789, "nothing": None, "deep": {"also": None, "list": [1.00001]}}
    assert to_json(CallToolCall("t1", "call_1", "look_up", arguments))["arguments"] == arguments
