"""VoiceLLMService keeps the host's contract: frames in order, metrics, errors, live settings, a place given back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    LLMThoughtEndFrame,
    LLMThoughtStartFrame,
    LLMThoughtTextFrame,
    LLMUpdateSettingsFrame,
    MetricsFrame,
)
from pipecat.metrics.metrics import LLMTokenUsage, LLMUsageMetricsData, ProcessingMetricsData, TTFBMetricsData
from pipecat.pipeline.worker import PipelineParams
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.transcriptions.language import Language
from pipecat.utils.errors import ErrorCategory

from tests.runtime.helpers import GatedBackend, idle, running
from voice_llm.errors import EngineDeadError
from voice_llm.pipecat import VoiceLLMService
from voice_llm.pipecat.settings import VoiceLLMSettings
from voice_llm.runtime import Engine
from voice_llm.testing import FakeBackend

from .bot import Bot, calling

pytestmark = pytest.mark.unit

_METRICS = PipelineParams(enable_metrics=True, enable_usage_metrics=True)


def context(*said: str) -> LLMContext:
    return LLMContext([{"role": "user", "content": text} for text in said])


def without_metrics(frames: Any) -> list[Frame]:
    return [f for f in frames if not isinstance(f, MetricsFrame)][1:]  # the first is the service's metadata


def errors_of(frames: Any) -> list[ErrorFrame]:
    return [f for f in frames if isinstance(f, ErrorFrame)]


async def ask(llm: FrameProcessor, *contexts: LLMContext, **options: Any) -> tuple[list[Frame], list[Frame]]:
    down, up = await run_test(
        llm, frames_to_send=[LLMContextFrame(c) for c in contexts], pipeline_params=_METRICS, **options
    )
    return list(down), list(up)


async def test_a_reply_is_start_text_end() -> None:
    async with running(FakeBackend(reply=lambda p: "Good morning. Hello.")) as engine:
        down, _ = await ask(VoiceLLMService(engine=engine), context("Hi"))
    frames = without_metrics(down)
    assert isinstance(frames[0], LLMFullResponseStartFrame)
    assert isinstance(frames[-1], LLMFullResponseEndFrame)
    assert all(isinstance(f, LLMTextFrame) for f in frames[1:-1])
    assert "".join(f.text for f in frames if isinstance(f, LLMTextFrame)) == "Good morning. Hello."


async def test_with_chunks_each_text_frame_is_a_sentence_and_they_join_to_the_reply() -> None:
    async with running(FakeBackend(reply=lambda p: "Good morning to you. How can I help?")) as engine:
        down, _ = await ask(VoiceLLMService(engine=engine, chunks=True), context("Hi"))
    texts = [f.text for f in down if isinstance(f, LLMTextFrame)]
    assert [t.strip() for t in texts] == ["Good morning to you.", "How can I help?"]
    assert "".join(texts) == "Good morning to you. How can I help?"


async def test_thoughts_are_framed_and_never_text() -> None:
    async with running(FakeBackend(reply=lambda p: "<think>hm, well</think>Yes.")) as engine:
        down, _ = await ask(VoiceLLMService(engine=engine), context("Hi"))
    kinds = [type(f) for f in without_metrics(down)]
    thought = [f.text for f in down if isinstance(f, LLMThoughtTextFrame)]
    assert "".join(thought) == "hm, well"
    assert kinds.index(LLMThoughtStartFrame) < kinds.index(LLMThoughtTextFrame) < kinds.index(LLMThoughtEndFrame)
    assert "".join(f.text for f in down if isinstance(f, LLMTextFrame)) == "Yes."


async def test_metrics_say_time_to_first_token_processing_time_and_what_was_cached() -> None:
    async with running() as engine:
        llm = VoiceLLMService(engine=engine)
        down, _ = await ask(llm, context("Hi"), context("Hi", "and once more, at length"))
    data = [d for f in down if isinstance(f, MetricsFrame) for d in f.data if d.processor == llm.name]
    usages = [d.value for d in data if isinstance(d, LLMUsageMetricsData)]
    assert len([d for d in data if isinstance(d, TTFBMetricsData) and d.value > 0]) == 2
    assert len([d for d in data if isinstance(d, ProcessingMetricsData) and d.value > 0]) == 2
    assert len(usages) == 2
    assert (usages[0].cache_read_input_tokens or 0) < (usages[1].cache_read_input_tokens or 0)
    assert all(u.total_tokens == u.prompt_tokens + u.completion_tokens for u in usages)


async def test_an_interruption_ends_the_reply_at_once_and_its_tokens_are_counted_later() -> None:
    backend = GatedBackend(reply=lambda p: "a" * 200)
    async with running(backend) as engine:
        bot = Bot(VoiceLLMService(engine=engine, early_prefill=False))
        async with calling(bot):
            backend.hold(after_tokens=5)
            await bot.say("Hi")
            await backend.held()
            await bot.worker.queue_frame(InterruptionFrame())
            # The engine hangs in a step from the fifth token on: whoever waited for it would wait for ever.
            await bot.until(lambda: bot.recorder.of(LLMFullResponseEndFrame), "the end of the reply")
            await bot.until(lambda: (bot.llm, InterruptionFrame) in _pushed(bot), "the interruption to go on")
            assert _usages(bot.recorder.of(MetricsFrame)) == []
            backend.release()
            await bot.until(lambda: _usages(bot.recorder.of(MetricsFrame)), "the reply's usage")
            [usage] = _usages(bot.recorder.of(MetricsFrame))
            assert 5 <= usage.completion_tokens < 20
        await idle(engine)
        assert engine.health().open_calls == 0
        assert backend.counters.sampled_tokens < 20


def _pushed(bot: Bot) -> list[tuple[FrameProcessor, type[Frame]]]:
    return [(source, type(frame)) for source, frame in bot.recorder.pushed]


def _usages(frames: Any) -> list[LLMTokenUsage]:
    return [d.value for f in frames for d in f.data if isinstance(d, LLMUsageMetricsData)]


async def test_settings_change_live_from_the_next_turn_on() -> None:
    async with running(FakeBackend(reply=lambda p: p)) as engine:
        llm = VoiceLLMService(engine=engine, settings=VoiceLLMService.Settings(system_instruction="Old rules."))
        down, _ = await run_test(
            llm,
            frames_to_send=[
                LLMUpdateSettingsFrame(delta=VoiceLLMService.Settings(system_instruction="New rules.", max_tokens=300)),
                LLMContextFrame(context("Hi")),
            ],
        )
    text = "".join(f.text for f in down if isinstance(f, LLMTextFrame))
    assert "New rules." in text
    assert "Old rules." not in text


async def chunks_in(engine: Engine, settings: VoiceLLMSettings, *frames: Frame) -> list[str]:
    llm = VoiceLLMService(engine=engine, settings=settings, chunks=True)
    down, _ = await run_test(llm, frames_to_send=[*frames, LLMContextFrame(context("Hi"))])
    return [f.text.strip() for f in down if isinstance(f, LLMTextFrame)]


async def test_the_language_of_the_settings_says_where_sentences_end_and_changes_live() -> None:
    turkish, english = ["Odanız 3. Kat'ta olacak.", "Tamam mı?"], ["Odanız 3.", "Kat'ta olacak.", "Tamam mı?"]
    settings = VoiceLLMService.Settings
    async with running(FakeBackend(reply=lambda p: " ".join(turkish))) as engine:
        assert await chunks_in(engine, settings()) == english
        assert await chunks_in(engine, settings(language=Language.TR_TR)) == turkish
        to_turkish = LLMUpdateSettingsFrame(delta=settings(language="tr"))
        assert await chunks_in(engine, settings(), to_turkish) == turkish
        to_default = LLMUpdateSettingsFrame(delta=settings(language=None))
        assert await chunks_in(engine, settings(language="tr"), to_default) == english


async def test_a_language_that_is_none_is_an_error_that_names_it() -> None:
    async with running() as engine:
        llm = VoiceLLMService(engine=engine, settings=VoiceLLMService.Settings(language="Turkish"))
        _, up = await ask(llm, context("Hello"))
    assert "language" in errors_of(up)[0].error


async def test_the_reply_is_as_long_as_the_settings_allow() -> None:
    async with running(FakeBackend(reply=lambda p: "abcdefghij")) as engine:
        llm = VoiceLLMService(engine=engine, settings=VoiceLLMService.Settings(max_tokens=4))
        down, _ = await ask(llm, context("Hi"))
    assert "".join(f.text for f in down if isinstance(f, LLMTextFrame)) == "abcd"


async def test_the_profiles_prompt_comes_before_the_services_and_the_rag_context_after() -> None:
    async with running(FakeBackend(reply=lambda p: p), system_prompt="House rules.") as engine:
        settings = VoiceLLMService.Settings(system_instruction="This call.", rag_context="Fact 7.", max_tokens=500)
        down, _ = await ask(VoiceLLMService(engine=engine, settings=settings), context("Hi"))
    text = "".join(f.text for f in down if isinstance(f, LLMTextFrame))
    assert text.index("House rules.") < text.index("This call.") < text.index("Fact 7.")


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
            "image",
        ),
        ({"role": "narrator", "content": "Once upon a time."}, "narrator"),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{not json"}}],
            },
            "look",
        ),
    ],
    ids=["image", "unknown role", "arguments that are not JSON"],
)
async def test_what_cannot_be_used_is_reported_once_and_the_call_is_answered(message: Any, named: str) -> None:
    """It stays in the context: refused at every turn, it would silence the rest of the call."""
    conversation = LLMContext([message, {"role": "user", "content": "Hello"}])
    async with running() as engine:
        llm = VoiceLLMService(engine=engine, chunks=True)
        down, up = await ask(llm, conversation, conversation)
    [error] = errors_of(up)
    assert error.category is ErrorCategory.APPLICATION
    assert named in error.error
    assert llm.is_usable
    assert [f.text for f in down if isinstance(f, LLMTextFrame)].count("You said Hello. ") == 2


async def test_a_reply_without_words_or_calls_is_an_error() -> None:
    cut = '<tool_call>{"name":"look","arguments":{"number":"12345678901234567890'
    schema = FunctionSchema(name="look", description="", properties={"number": {"type": "string"}}, required=[])
    conversation = LLMContext([{"role": "user", "content": "Hello"}], tools=[schema])
    async with running(FakeBackend(reply=lambda p: cut)) as engine:
        llm = VoiceLLMService(engine=engine, settings=VoiceLLMService.Settings(max_tokens=40))
        down, up = await ask(llm, conversation)
    assert "neither words nor" in errors_of(up)[0].error
    assert llm.is_usable
    assert isinstance(without_metrics(down)[-1], LLMFullResponseEndFrame)


async def test_the_model_cannot_be_changed_live_and_that_is_said() -> None:
    async with running() as engine:
        llm = VoiceLLMService(engine=engine)
        delta = VoiceLLMService.Settings(model="another", temperature=0.7)
        _, up = await run_test(llm, frames_to_send=[LLMUpdateSettingsFrame(delta=delta)])
    assert "cannot be changed" in errors_of(up)[0].error
    assert (llm.settings.model, llm.settings.temperature) == ("test", 0.7)  # type: ignore[attr-defined]


async def test_extra_settings_are_fields_of_the_sampling() -> None:
    async with running(FakeBackend(reply=lambda p: "abcdefghij")) as engine:
        llm = VoiceLLMService(engine=engine, settings=VoiceLLMService.Settings(extra={"max_tokens": 3, "seed": 1}))
        down, _ = await ask(llm, context("Hi"))
    assert "".join(f.text for f in down if isinstance(f, LLMTextFrame)) == "abc"


async def test_a_setting_out_of_range_is_an_error_that_names_it() -> None:
    async with running() as engine:
        llm = VoiceLLMService(engine=engine, settings=VoiceLLMService.Settings(temperature=99.0))
        _, up = await ask(llm, context("Hello"))
    assert "temperature" in errors_of(up)[0].error


async def test_a_full_engine_is_an_error_and_the_call_is_answered_once_there_is_room() -> None:
    async with running(FakeBackend(sequences=1), max_calls=1) as engine:
        other = await engine.open_call()
        llm = VoiceLLMService(engine=engine)

        async def make_room() -> None:
            await asyncio.sleep(0.3)
            await other.close()

        room = asyncio.create_task(make_room())
        down, up = await run_test(
            llm,
            frames_to_send=[LLMContextFrame(context("one")), SleepFrame(0.6), LLMContextFrame(context("two"))],
            pipeline_params=_METRICS,
        )
        await room
    assert {e.category for e in errors_of(up)} == {ErrorCategory.RATE_LIMIT}
    assert llm.is_usable
    assert "".join(f.text for f in down if isinstance(f, LLMTextFrame)).startswith("You said two.")


async def test_a_closed_engine_makes_the_service_unusable_and_the_pipeline_goes_on() -> None:
    engine = await Engine.start(FakeBackend(), _profile())
    await engine.close()
    llm = VoiceLLMService(engine=engine)
    down, up = await ask(llm, context("Hi"))
    assert not llm.is_usable
    assert isinstance(errors_of(up)[0].exception, EngineDeadError)
    assert isinstance(down[0], Frame)


async def test_the_place_is_given_back_once_and_cleanup_may_be_repeated() -> None:
    async with running() as engine:
        llm = VoiceLLMService(engine=engine, call_id="one")
        await ask(llm, context("Hi"))
        await llm.cleanup()
        await llm.cleanup()
        await idle(engine)
        assert engine.health().open_calls == 0
        async with engine.open_call(call_id="one", tenant="default"):
            pass


async def test_a_one_shot_inference_works_without_a_pipeline() -> None:
    async with running(FakeBackend(reply=lambda p: f"Summary of {len(p)} characters.")) as engine:
        llm = VoiceLLMService(engine=engine)
        text = await llm.run_inference(context("a long talk"), system_instruction="Summarise.")
        assert text is not None
        assert text.startswith("Summary of")
        await idle(engine)
        assert engine.health().open_calls == 0


async def test_a_one_shot_inference_sees_only_its_own_instruction() -> None:
    async with running(FakeBackend(reply=lambda p: p), system_prompt="House rules.") as engine:
        llm = VoiceLLMService(engine=engine, settings=VoiceLLMService.Settings(rag_context="Fact 7."))
        text = await llm.run_inference(context("talk"), max_tokens=400, system_instruction="Summarise.") or ""
    assert "Summarise." in text
    assert "House rules." not in text
    assert "Fact 7." not in text


async def test_a_one_shot_inference_runs_while_the_call_is_answered() -> None:
    backend = GatedBackend(reply=lambda p: "Summary." if "Summarise" in p else "x" * 50)
    async with running(backend) as engine:
        llm = VoiceLLMService(engine=engine)
        pipeline = asyncio.create_task(
            run_test(llm, frames_to_send=[LLMContextFrame(context("Hi")), SleepFrame(0.2)], pipeline_params=_METRICS)
        )
        text = await llm.run_inference(context("talk"), system_instruction="Summarise.")
        down, _ = await pipeline
    assert text == "Summary."
    assert "".join(f.text for f in down if isinstance(f, LLMTextFrame)) == "x" * 50


async def test_a_reply_to_a_schema_is_json_as_it_was_drawn() -> None:
    reply = json.dumps({"verdict": "*yes* [see](x) <b>", "why": "a_b_c"})
    async with running(FakeBackend(reply=lambda p: reply)) as engine:
        llm = VoiceLLMService(engine=engine)
        text = await llm.run_inference(context("talk"), response_schema={"type": "object"})
    assert text == reply


def _profile() -> Any:
    from tests.runtime.helpers import profile

    return profile()


@pytest.mark.parametrize("chunks", [True, False])
async def test_reply_counts_as_heard_from_its_first_sentence_on_where_pipecat_cuts_the_text(
    chunks: bool, heard: list[str]
) -> None:
    said = "Thank you for calling, madam. How can I help you?"
    async with running(FakeBackend(reply=lambda _: said)) as engine:
        await ask(VoiceLLMService(engine=engine, chunks=chunks), context("Hi"))
    assert heard[0] == ("Thank you for calling, " if chunks else "Thank you for calling, madam. ")
