"""The service on a real model: replies, summaries, JSON, and eight calls at once that know nothing of each other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import pytest_asyncio
from pipecat.frames.frames import LLMContextFrame, LLMMessagesAppendFrame, LLMTextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMAssistantAggregatorParams,
    LLMContextAggregatorPair,
)
from pipecat.tests.utils import run_test
from pipecat.utils.context.llm_context_summarization import (
    LLMAutoContextSummarizationConfig,
    LLMContextSummaryConfig,
)
from pipecat.workers.runner import WorkerRunner

from voice_llm import Engine
from voice_llm.config import Profile
from voice_llm.pipecat import VoiceLLMService
from voice_llm.testing import LoopMeter

pytestmark = pytest.mark.model

_BOTS: Final = 8
_TURNS: Final = 3
_PATIENCE_S: Final = 60.0
_WORDS: Final = ("apple", "violin", "tiger", "rocket", "castle", "banana", "pirate", "guitar")


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    profile = Profile.load("smollm2_135m_demo")
    small = profile.engine.replace(sequences=_BOTS, context_per_call=2048, threads=1, threads_batch=1)
    async with await Engine.load(profile.model_copy(update={"engine": small, "system_prompt": ""})) as engine:
        yield engine
        await engine.check_integrity()


class TextBot:
    """A bot that reads and writes: user aggregator, service, assistant aggregator."""

    def __init__(self, llm: VoiceLLMService, params: LLMAssistantAggregatorParams | None = None) -> None:
        self.context = LLMContext()
        user, self.assistant = LLMContextAggregatorPair(self.context, assistant_params=params)
        self.worker = PipelineWorker(
            Pipeline([user, llm, self.assistant]), cancel_on_idle_timeout=False, enable_rtvi=False
        )
        self.answered = asyncio.Event()
        self.summarised = asyncio.Event()

        async def on_answered(aggregator: Any, message: Any) -> None:
            self.answered.set()

        async def on_summary(aggregator: Any, *rest: Any) -> None:
            self.summarised.set()

        self.assistant.add_event_handler("on_assistant_turn_stopped", on_answered)
        self.assistant.add_event_handler("on_summary_applied", on_summary)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [dict(message) for message in self.context.messages]  # type: ignore[arg-type]

    async def ask(self, text: str) -> str:
        self.answered.clear()
        await self.worker.queue_frame(
            LLMMessagesAppendFrame(messages=[{"role": "user", "content": text}], run_llm=True)
        )
        await asyncio.wait_for(self.answered.wait(), _PATIENCE_S)
        return str(self.messages[-1]["content"])


@asynccontextmanager
async def calling(bots: Sequence[TextBot]) -> AsyncIterator[None]:
    runner = WorkerRunner(handle_sigint=False)
    started = [asyncio.Event() for _ in bots]
    for bot, event in zip(bots, started, strict=True):

        async def on_started(worker: Any, frame: Any, event: asyncio.Event = event) -> None:
            event.set()

        bot.worker.add_event_handler("on_pipeline_started", on_started)
    await runner.add_workers(*(bot.worker for bot in bots))
    running = asyncio.create_task(runner.run())
    try:
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in started)), _PATIENCE_S)
        yield
    finally:
        for bot in bots:
            await bot.worker.cancel()
        await asyncio.wait_for(running, _PATIENCE_S)


async def test_a_question_about_the_context_is_answered_from_it(engine: Engine) -> None:
    settings = VoiceLLMService.Settings(
        system_instruction="Answer the caller in one short sentence.",
        rag_context="The deductible for water damage is 150 euros.",
        temperature=0.0,
    )
    llm = VoiceLLMService(engine=engine, settings=settings)
    context = LLMContext([{"role": "user", "content": "What is the deductible for water damage?"}])
    down, _ = await run_test(llm, frames_to_send=[LLMContextFrame(context)], start_timeout=10)
    assert "150" in "".join(f.text for f in down if isinstance(f, LLMTextFrame))


async def test_a_reply_to_a_schema_follows_it_and_needs_no_pipeline(engine: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {
            "verdict": {"type": "string", "enum": ["yes", "no"]},
            "why": {"type": "string", "maxLength": 40},
        },
        "required": ["verdict", "why"],
        "additionalProperties": False,
    }
    llm = VoiceLLMService(engine=engine)
    context = LLMContext([{"role": "user", "content": "Is Paris in France?"}])
    text = await llm.run_inference(context, max_tokens=80, response_schema=schema)
    reply = json.loads(text or "")
    assert reply["verdict"] in ("yes", "no")
    assert set(reply) == {"verdict", "why"}


async def test_a_long_conversation_is_summarised_while_the_call_goes_on(engine: Engine) -> None:
    config = LLMAutoContextSummarizationConfig(
        max_context_tokens=None,
        max_unsummarized_messages=6,
        summary_config=LLMContextSummaryConfig(target_context_tokens=60, min_messages_after_summary=2),
    )
    params = LLMAssistantAggregatorParams(
        enable_auto_context_summarization=True, auto_context_summarization_config=config
    )
    settings = VoiceLLMService.Settings(system_instruction="Answer in one short sentence.", max_tokens=24)
    bot = TextBot(VoiceLLMService(engine=engine, settings=settings), params)
    async with calling([bot]):
        for question in ("I am Ada.", "My car was hit.", "It happened in Berlin.", "What now?"):
            assert await bot.ask(question)
        await asyncio.wait_for(bot.summarised.wait(), _PATIENCE_S)
        assert bot.messages[0]["content"].startswith("Conversation summary: ")
        assert len(bot.messages) < 8
        assert await bot.ask("Thank you.")
    await engine.check_integrity()
    assert engine.health().open_calls == 0


async def test_eight_bots_at_once_lose_no_turn_and_never_see_each_others_calls(engine: Engine) -> None:
    bots = [
        TextBot(
            VoiceLLMService(
                engine=engine,
                settings=VoiceLLMService.Settings(
                    system_instruction=f"The secret word of this caller is {word}. Answer in one short sentence.",
                    temperature=0.0,
                    max_tokens=16,
                ),
            )
        )
        for word in _WORDS
    ]
    async with calling(bots):
        with LoopMeter() as meter:
            replies = await asyncio.gather(*(_talk(bot) for bot in bots))
    assert all(len(said) == _TURNS and all(said) for said in replies)
    for own, bot, said in zip(_WORDS, bots, replies, strict=True):
        assert [m["role"] for m in bot.messages] == ["user", "assistant"] * _TURNS
        heard = " ".join(said).lower()
        assert not [word for word in _WORDS if word != own and word in heard]
    assert sum(own in " ".join(said).lower() for own, said in zip(_WORDS, replies, strict=True)) >= _BOTS - 2
    # What the loop's own callbacks take; waiting for one of two cores is not counted.
    assert meter.longest.cpu_ms < 20
    await engine.check_integrity()
    assert engine.health().open_calls == 0


async def _talk(bot: TextBot) -> list[str]:
    return [await bot.ask(q) for q in ("What is my secret word?", "Say the secret word again.", "What word was it?")]
