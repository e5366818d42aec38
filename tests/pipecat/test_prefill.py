"""What is known of the next prompt is computed while nobody waits, and never in the way of a live turn."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from pipecat.frames.frames import LLMContextFrame, MetricsFrame, TTSSpeakFrame
from pipecat.metrics.metrics import LLMTokenUsage, LLMUsageMetricsData
from pipecat.processors.aggregators.llm_context import LLMContext

from tests.runtime.helpers import GatedBackend, idle, prompts_made, running
from voice_llm.pipecat import VoiceLLMService
from voice_llm.runtime import Engine
from voice_llm.testing import FakeBackend

from .bot import Bot, calling

pytestmark = pytest.mark.unit

# A byte is a token here, and so is a control token: end of the turn, line break, start of a turn, "assistant\n".
_TAIL_TOKENS = 1 + 1 + 1 + len("assistant\n")


def computed(usage: LLMTokenUsage) -> int:
    return usage.prompt_tokens - (usage.cache_read_input_tokens or 0)


def usages(bot: Bot) -> list[LLMTokenUsage]:
    data = [d for f in bot.recorder.of(MetricsFrame) if isinstance(f, MetricsFrame) for d in f.data]
    return [d.value for d in data if isinstance(d, LLMUsageMetricsData)]


async def settled(bot: Bot, engine: Engine) -> None:
    """Wait until the pipeline and the engine have nothing left to do."""
    await bot.silence()
    await prompts_made(engine)
    await idle(engine)


async def turn(bot: Bot, engine: Engine, text: str) -> LLMTokenUsage:
    count = len(usages(bot))
    await bot.say(text)
    await bot.until(lambda: len(usages(bot)) > count, "the turn's usage")
    bot.speaker.play(10)
    await settled(bot, engine)
    return usages(bot)[count]


async def test_the_opening_prompt_is_in_the_cache_before_the_caller_speaks() -> None:
    backend = FakeBackend()
    async with running(backend) as engine:
        settings = VoiceLLMService.Settings(system_instruction="A long persona. " * 10)
        bot = Bot(VoiceLLMService(engine=engine, settings=settings))
        async with calling(bot):
            await settled(bot, engine)
            assert backend.counters.sampled_tokens == 0
            usage = await turn(bot, engine, "hello")
    assert (usage.cache_read_input_tokens or 0) >= 160


async def test_history_and_header_are_computed_after_a_reply_so_that_only_the_words_are_left() -> None:
    async with running() as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True), shows_words=False)
        async with calling(bot):
            await turn(bot, engine, "hello")
            usage = await turn(bot, engine, "what do I pay")
    assert computed(usage) == len("what do I pay") + _TAIL_TOKENS


async def test_without_early_prefill_the_header_is_left_to_the_turn() -> None:
    async with running() as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True, early_prefill=False))
        async with calling(bot):
            await turn(bot, engine, "hello")
            usage = await turn(bot, engine, "what do I pay")
    assert computed(usage) > len("what do I pay") + _TAIL_TOKENS


async def test_partial_transcripts_leave_the_turn_nothing_to_compute_but_what_has_to_be_fresh() -> None:
    async with running() as engine:
        bot = Bot(VoiceLLMService(engine=engine))
        async with calling(bot):
            await settled(bot, engine)
            await bot.start_speaking()
            await bot.hear("what do", interim=True)
            await settled(bot, engine)
            await bot.hear("what  do I pay ", interim=True)
            await settled(bot, engine)
            await bot.stop_speaking()
            await bot.hear(" what do I pay")
            await bot.until(lambda: usages(bot), "the turn's usage")
            usage = usages(bot)[0]
    assert computed(usage) == 2  # a turn always computes that much, for fresh logits


async def test_segments_of_one_turn_are_prefilled_together_and_the_next_turn_starts_afresh() -> None:
    heard: list[str] = []

    class Listening(VoiceLLMService):
        def prefill_user_text(self, text: str) -> None:
            heard.append(text)

    async with running() as engine:
        bot = Bot(Listening(engine=engine))
        async with calling(bot):
            await bot.start_speaking()
            await bot.hear("I have")
            await bot.hear("a question", interim=True)
            await bot.hear("a question")
            await bot.stop_speaking()
            await bot.until_said(1)
            await bot.start_speaking()
            await bot.hear("another", interim=True)
            await settled(bot, engine)
    assert heard == ["I have", "I have a question", "I have a question", "another"]


async def test_a_wrong_partial_changes_nothing_in_the_reply() -> None:
    async with running() as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        async with calling(bot):
            await bot.start_speaking()
            await bot.hear("cancel my contract", interim=True)
            await settled(bot, engine)
            await bot.stop_speaking()
            await bot.hear("can I call tomorrow")
            await bot.until_said(1)
    assert bot.voice.said[0] == "You said can I call tomorrow."


async def test_a_prefill_in_progress_gives_way_to_a_live_turn() -> None:
    backend = GatedBackend(max_batch_tokens=64, context_per_call=8192)
    async with running(backend) as engine:
        llm = VoiceLLMService(engine=engine)
        bot = Bot(llm)
        async with calling(bot):
            await settled(bot, engine)
            backend.hold()
            llm.prefill_user_text("x" * 4000)
            await backend.held()
            await bot.worker.queue_frame(LLMContextFrame(LLMContext([{"role": "user", "content": "now"}])))
            await bot.silence()
            before = backend.counters.decoded_tokens
            backend.release()
            await bot.until(lambda: usages(bot), "the turn's usage")
            assert backend.counters.decoded_tokens - before < 300


async def test_hints_to_a_call_without_a_place_are_harmless() -> None:
    async with running(max_calls=1) as engine:
        other = await engine.open_call()
        llm = VoiceLLMService(engine=engine, chunks=True)
        bot = Bot(llm)
        async with calling(bot):
            llm.prefill_user_text("hello")
            await bot.silence()
            await other.close()
            await bot.say("hello")
            await bot.until_said(1)
            assert bot.voice.said[0] == "You said hello."


async def test_a_greeting_and_eager_turns_stay_in_the_cache_too() -> None:
    """In such a call the service never sees the live context, only copies and announcements."""
    async with running() as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True), shows_words=False)
        bot.verdicts.decided.clear()
        async with calling(bot):
            bot.speaker.play(1000)
            await bot.worker.queue_frame(TTSSpeakFrame("Good day.", append_to_context=True))
            await bot.until(lambda: bot.messages, "the greeting to be committed")
            for count in (1, 2, 3):
                await settled(bot, engine)
                await bot.start_speaking()
                await settled(bot, engine)
                bot.verdicts.decided.clear()
                await bot.stop_speaking()
                await bot.hear("what do I pay")
                await bot.until(lambda count=count: len(usages(bot)) == count, "the eager reply")  # type: ignore[misc]
                bot.verdicts.decided.set()
                await bot.until(lambda count=count: len(bot.messages) == 1 + 2 * count, "its commit")  # type: ignore[misc]
            assert bot.llm.speculation.confirmed == 3
    assert [computed(usage) for usage in usages(bot)] == [len("what do I pay") + _TAIL_TOKENS] * 3


async def test_a_warmed_up_prompt_is_there_when_a_call_begins() -> None:
    backend = FakeBackend()
    async with running(backend) as engine:
        settings = VoiceLLMService.Settings(system_instruction="A long persona. " * 10, rag_context="Fact. " * 10)
        await VoiceLLMService(engine=engine, settings=settings).warm_up()
        before = backend.counters.decoded_tokens
        bot = Bot(VoiceLLMService(engine=engine, settings=settings))
        async with calling(bot):
            await settled(bot, engine)
            assert backend.counters.decoded_tokens - before < 10
        await engine.check_integrity()
        assert engine.health().open_calls == 0


async def test_hints_before_it_is_known_what_was_spoken_leave_the_reply_in_the_cache() -> None:
    """A caller who says a word over the voice without interrupting it must not cost the reply its cache."""
    backend = FakeBackend()
    async with running(backend) as engine:
        llm = VoiceLLMService(engine=engine, chunks=True)
        bot = Bot(llm)
        async with calling(bot):
            await bot.say("what do I pay")
            await bot.until_said(2)
            await settled(bot, engine)
            before = backend.counters.decoded_tokens
            llm.prefill_user_text("mhm")
            await settled(bot, engine)
            assert backend.counters.decoded_tokens == before


async def test_a_live_turn_never_stands_in_line_behind_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as engine:
        llm = VoiceLLMService(engine=engine)
        bot = Bot(llm)
        async with calling(bot):
            await settled(bot, engine)
            made: list[object] = []
            format_prompt = engine._formatter.format

            def counting(*args: Any, **options: Any) -> Any:
                made.append(args)
                return format_prompt(*args, **options)

            monkeypatch.setattr(engine._formatter, "format", counting)
            blocked = threading.Event()
            engine._prompts.submit(blocked.wait, 10)
            for words in range(1, 30):
                llm.prefill_user_text("word " * words)
                await asyncio.sleep(0)
            await bot.worker.queue_frame(LLMContextFrame(LLMContext([{"role": "user", "content": "now"}])))
            await bot.silence()
            blocked.set()
            await bot.until(lambda: usages(bot), "the turn's usage")
            assert len(made) == 1


async def test_words_are_hints_again_once_an_eager_reply_was_withdrawn() -> None:
    backend = FakeBackend()
    async with running(backend) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        bot.verdicts.decided.clear()
        async with calling(bot):
            await bot.say("I have")
            await settled(bot, engine)
            assert bot.llm.speculation.started == 1
            await bot.start_speaking()
            await settled(bot, engine)
            before = backend.counters.decoded_tokens
            await bot.hear("a long question about my claim", interim=True)
            await settled(bot, engine)
            assert backend.counters.decoded_tokens - before >= len("a long question about my claim")
