"""Function calls: asked for by the model, run by Pipecat, answered from their result, never run ahead of the turn."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.frames.frames import FunctionCallResultFrame
from pipecat.services.llm_service import FunctionCallParams

from tests.runtime.helpers import idle, prompts_made, running
from voice_llm.pipecat import SpeculationCounters, VoiceLLMService
from voice_llm.runtime import Engine
from voice_llm.testing import FakeBackend

from .bot import Bot, calling

pytestmark = pytest.mark.unit

Handler = Callable[[FunctionCallParams], Awaitable[None]]


def claim_status(handler: Handler) -> FunctionSchema:
    return FunctionSchema(
        name="claim_status",
        description="Look up a claim",
        properties={"number": {"type": "string", "description": "The claim's number"}},
        required=["number"],
        handler=handler,
    )


def call_of(number: str, name: str = "claim_status") -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': {'number': number}})}</tool_call>"


def reply(prompt: str) -> str:
    """Ask for the tool until its result is there."""
    results = re.findall(r"<tool_response>(.*?)</tool_response>", prompt, flags=re.DOTALL)
    if results and "IN_PROGRESS" not in results[-1]:
        return f"It is {results[-1].strip()}."
    number = re.findall(r"\d+", prompt)[-1]
    return f"Let me look. {call_of(number)}"


async def generated(bot: Bot, engine: Engine) -> None:
    await bot.silence()
    await prompts_made(engine)
    await idle(engine)
    await bot.silence()


async def test_a_tool_is_run_and_its_result_is_spoken() -> None:
    asked: list[Any] = []

    async def handler(params: FunctionCallParams) -> None:
        asked.append(dict(params.arguments))
        await params.result_callback("paid")

    async with running(FakeBackend(reply=reply)) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True), tools=[claim_status(handler)])
        async with calling(bot):
            bot.speaker.play(1000)
            await bot.say("what about claim 4711")
            await bot.until_said(2)
            await generated(bot, engine)
            assert asked == [{"number": "4711"}]
            assert bot.voice.said == ["Let me look.", 'It is "paid".']
            roles = [m["role"] for m in bot.messages]
            assert roles[0] == "user"
            assert "tool" in roles
            assert roles[-1] == "assistant"


async def test_two_tools_of_one_reply_run_and_are_answered_once() -> None:
    asked: list[str] = []
    both_run = asyncio.Barrier(2)

    async def handler(params: FunctionCallParams) -> None:
        asked.append(params.arguments["number"])
        await both_run.wait()
        await asyncio.sleep(0.05)  # as long as a real tool takes at least: Pipecat has announced both by then
        await params.result_callback("paid")

    def both(prompt: str) -> str:
        return "Both are paid." if prompt.count("<tool_response>") > 1 else call_of("1") + call_of("2")

    async with running(FakeBackend(reply=both)) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True), tools=[claim_status(handler)])
        async with calling(bot):
            bot.speaker.play(1000)
            await bot.say("claims 1 and 2")
            await bot.until_said(1)
            await generated(bot, engine)
    assert sorted(asked) == ["1", "2"]
    assert bot.voice.said == ["Both are paid."]


async def test_no_tool_runs_from_a_speculative_turn() -> None:
    ran = 0

    async def handler(params: FunctionCallParams) -> None:
        nonlocal ran
        ran += 1
        await params.result_callback("paid")

    async with running(FakeBackend(reply=reply)) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True), tools=[claim_status(handler)])
        bot.verdicts.decided.clear()
        async with calling(bot):
            bot.speaker.play(1000)
            await bot.say("what about claim 4711")
            await generated(bot, engine)
            assert ran == 0
            assert bot.voice.said == []
            assert bot.llm.speculation.started == bot.llm.speculation.withdrawn == 1
            bot.verdicts.decided.set()
            await bot.until_said(2)
            await generated(bot, engine)
    assert ran == 1
    assert bot.voice.said == ["Let me look.", 'It is "paid".']
    assert bot.llm.speculation.confirmed == 0
    assert bot.llm.speculation.wasted_tokens > 0


async def test_barge_in_during_a_tool_call_cancels_it_and_the_next_turn_is_answered() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(params: FunctionCallParams) -> None:
        started.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def ask_once(prompt: str) -> str:
        return "As you like." if "never mind" in prompt else call_of("4711")

    async with running(FakeBackend(reply=ask_once)) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True), tools=[claim_status(handler)])
        async with calling(bot):
            bot.speaker.play(1000)
            await bot.say("what about claim 4711")
            await asyncio.wait_for(started.wait(), 5)
            # Pipecat's note of the call stands in line behind the voice, and its cancel overtakes it there.
            await bot.until(lambda: any(m["role"] == "tool" for m in bot.messages), "the call to be written down")
            await bot.start_speaking()
            await asyncio.wait_for(cancelled.wait(), 5)
            await bot.stop_speaking()
            await bot.hear("never mind")
            await bot.until_said(1)
            await generated(bot, engine)
            await bot.until(
                lambda: ["CANCELLED" in m["content"] for m in bot.messages if m["role"] == "tool"] == [True],
                "the call to be written down as cancelled",
            )
    assert bot.voice.said == ["As you like."]


async def test_a_tool_that_nobody_knows_is_answered_as_unavailable() -> None:
    def wrong_tool(prompt: str) -> str:
        return "I cannot." if "<tool_response>" in prompt else call_of("1")

    async with running(FakeBackend(reply=wrong_tool)) as engine:
        schema = claim_status(None)  # type: ignore[arg-type]
        bot = Bot(VoiceLLMService(engine=engine, chunks=True), tools=[schema])
        async with calling(bot):
            bot.speaker.play(1000)
            await bot.say("claim 1")
            await bot.until_said(1)
    assert bot.voice.said == ["I cannot."]
    assert len(bot.recorder.of(FunctionCallResultFrame)) >= 1


async def test_a_call_that_is_no_json_is_neither_run_nor_spoken() -> None:
    async def handler(params: FunctionCallParams) -> None:
        raise AssertionError("must not run")

    async with running(FakeBackend(reply=lambda p: "One moment. <tool_call>{not json</tool_call>")) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True), tools=[claim_status(handler)])
        async with calling(bot):
            bot.speaker.play(1000)
            await bot.say("claim 1")
            await bot.until_said(1)
            await generated(bot, engine)
    assert bot.voice.said == ["One moment."]
    assert bot.llm.speculation == SpeculationCounters()
