"""Eager turns: begun at a pause's first transcript, spoken once the turn has ended, and thrown away otherwise."""

from __future__ import annotations

import pytest
from pipecat.audio.turn.base_turn_analyzer import EndOfTurnState
from pipecat.frames.frames import (
    Frame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseStartFrame,
    LLMRunFrame,
    LLMTextFrame,
    STTMetadataFrame,
)
from pipecat.turns.user_turn_strategies import UserTurnStrategies

from tests.runtime.helpers import GatedBackend, idle, prompts_made, running
from voice_llm.pipecat import EagerTurnStopStrategy, SpeculationCounters, VoiceLLMService
from voice_llm.runtime import Engine
from voice_llm.testing import FakeBackend

from .bot import Bot, calling

pytestmark = pytest.mark.unit


async def generated(bot: Bot, engine: Engine) -> None:
    await bot.silence()
    await prompts_made(engine)
    await idle(engine)
    await bot.silence()


async def test_the_reply_is_begun_in_the_pause_and_held_back_until_the_turn_has_ended() -> None:
    backend = FakeBackend()
    async with running(backend) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        bot.verdicts.decided.clear()
        async with calling(bot):
            await bot.say("what do I pay")
            await generated(bot, engine)
            assert backend.counters.sampled_tokens > 10
            assert bot.recorder.of(LLMFullResponseStartFrame) == []
            assert bot.messages == []
            bot.verdicts.decided.set()
            await bot.until_said(2)
            await bot.silence()
            sampled = backend.counters.sampled_tokens
        assert bot.voice.said == ["You said what do I pay.", "That makes 1."]
        assert bot.messages[0] == {"role": "user", "content": "what do I pay"}
        assert bot.llm.speculation == SpeculationCounters(started=1, confirmed=1)
        assert sampled < 60  # it was not generated twice


async def test_speech_that_goes_on_withdraws_the_reply_and_counts_what_it_cost() -> None:
    backend = FakeBackend()
    async with running(backend) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        bot.verdicts.verdict = EndOfTurnState.INCOMPLETE
        async with calling(bot):
            await bot.say("I have a question")
            await generated(bot, engine)
            wasted = backend.counters.sampled_tokens
            await bot.start_speaking()
            bot.verdicts.verdict = EndOfTurnState.COMPLETE
            await bot.stop_speaking()
            await bot.hear("about my claim")
            await bot.until_said(2)
        assert bot.voice.said[0] == "You said I have a question about my claim."
        assert bot.llm.speculation.withdrawn >= 1
        assert bot.llm.speculation.wasted_tokens >= wasted > 10


async def test_a_reply_that_is_withdrawn_while_it_is_generated_stops_and_is_counted() -> None:
    backend = GatedBackend(reply=lambda prompt: "a" * 200)
    async with running(backend) as engine:
        bot = Bot(VoiceLLMService(engine=engine))
        bot.verdicts.decided.clear()
        async with calling(bot):
            await generated(bot, engine)
            backend.hold(after_tokens=5)
            await bot.say("I have a question")
            await backend.held()
            await bot.start_speaking()
            await bot.silence()
            backend.release()
            await generated(bot, engine)
            assert bot.llm.speculation.withdrawn == 1
            assert 5 <= bot.llm.speculation.wasted_tokens < 20


async def test_a_second_transcript_in_the_same_pause_replaces_the_reply() -> None:
    async with running() as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        bot.verdicts.decided.clear()
        async with calling(bot):
            await bot.say("one")
            await generated(bot, engine)
            await bot.hear("two")
            await generated(bot, engine)
            bot.verdicts.decided.set()
            await bot.until_said(2)
            await bot.silence()
        assert bot.voice.said == ["You said one two.", "That makes 1."]
        assert bot.llm.speculation.started == 2
        assert (bot.llm.speculation.confirmed, bot.llm.speculation.withdrawn) == (1, 1)


async def test_a_verdict_that_is_already_in_ends_the_turn_without_speculation() -> None:
    async with running() as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        async with calling(bot):
            await bot.start_speaking()
            await bot.stop_speaking()
            await bot.silence()
            await bot.hear("what do I pay")
            await bot.until_said(2)
            await bot.silence()
        assert bot.voice.said == ["You said what do I pay.", "That makes 1."]
        assert bot.llm.speculation == SpeculationCounters()


async def test_a_transcript_while_the_caller_speaks_starts_nothing() -> None:
    async with running() as engine:
        bot = Bot(VoiceLLMService(engine=engine))
        async with calling(bot):
            await bot.start_speaking()
            await bot.hear("I have")
            await generated(bot, engine)
            assert bot.llm.speculation.started == 0
            assert bot.recorder.of(LLMContextFrame, LLMTextFrame) == []


@pytest.mark.parametrize("frame", [InterruptionFrame(), LLMRunFrame()], ids=["interruption", "run"])
async def test_a_turn_whose_held_reply_was_taken_away_is_answered_all_the_same(frame: Frame) -> None:
    async with running() as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        bot.verdicts.decided.clear()
        async with calling(bot):
            await bot.say("what do I pay")
            await generated(bot, engine)
            await bot.worker.queue_frame(frame)
            await generated(bot, engine)
            bot.verdicts.decided.set()
            await bot.until(lambda: "You said what do I pay." in bot.voice.said, "the answer")
        assert bot.llm.speculation.confirmed == 0


async def test_a_late_transcript_does_not_end_the_turn_that_goes_on() -> None:
    async with running() as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        bot.verdicts.verdict = EndOfTurnState.INCOMPLETE
        async with calling(bot):
            # So long may a transcript take; until then a turn that has some text waits for the rest.
            await bot.worker.queue_frame(STTMetadataFrame(service_name="stt", ttfs_p99_latency=5.0))
            await bot.start_speaking()
            await bot.stop_speaking()
            await bot.start_speaking()
            await bot.silence()
            await bot.hear("Hello.")
            await bot.silence()
            bot.verdicts.verdict = EndOfTurnState.COMPLETE
            await bot.stop_speaking()
            await bot.silence()
            assert bot.messages == []
            await bot.hear("What do I pay?")
            await bot.until_said(1)
            assert bot.messages[0]["content"] == "Hello. What do I pay?"


@pytest.mark.parametrize("eager", [True, False])
async def test_the_service_recommends_eager_turns_unless_they_are_switched_off(eager: bool) -> None:
    async with running() as engine:
        llm = VoiceLLMService(engine=engine, eager_turns=eager)
        async with calling(Bot(llm)):
            strategies = llm.service_metadata_frame().user_turn_strategies
    if not eager:
        assert strategies is None
        return
    assert isinstance(strategies, UserTurnStrategies)
    assert [type(s) for s in strategies.stop or []] == [EagerTurnStopStrategy]
