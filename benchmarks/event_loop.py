"""Eight bots on one engine in one process: how long their event loop is held up."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, Final

from loguru import logger
from pipecat.frames.frames import LLMMessagesAppendFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.workers.runner import WorkerRunner

from voice_llm import Engine
from voice_llm.config import Profile
from voice_llm.pipecat import VoiceLLMService
from voice_llm.testing import LoopMeter

from .common import Proof
from .questions import CALLS as QUESTIONS

BOTS: Final = 8
TURNS: Final = 4
BOUND_MS: Final = 20.0
_BUSY_S: Final = 0.005
_PATIENCE_S: Final = 120.0


async def eight_bots() -> list[Proof]:
    """Let eight bots talk at once, on a loop of their own and beside work that takes half of the loop's time."""
    for package in ("pipecat", "voice_llm"):
        logger.disable(package)  # Pipecat logs each step of each bot
    profile = Profile.load("smollm2_135m_demo")
    config = profile.engine.replace(sequences=BOTS, context_per_call=2048)
    async with await Engine.load(profile.model_copy(update={"engine": config})) as engine:
        alone = await _measure(engine)
        busy = asyncio.create_task(_keep_busy())
        beside_work = await _measure(engine)
        busy.cancel()
        with suppress(asyncio.CancelledError):
            await busy
    found = (alone, beside_work)
    answered = all(run["answered"] == BOTS * TURNS for run in found)
    return [
        Proof(
            "event_loop",
            f"eight bots in one process: no turn is lost, the event loop's callbacks never take longer than "
            f"{BOUND_MS:.0f} ms, and 99 of 100 pings of the loop are answered in that time, alone and beside work of "
            f"{_BUSY_S * 1e3:.0f} ms every {_BUSY_S * 2e3:.0f}",
            answered and max(max(run["longest_cpu_ms"], run["p99_ms"]) for run in found) <= BOUND_MS,
            {"alone": alone, "beside_work": beside_work},
        )
    ]


async def _measure(engine: Engine) -> dict[str, Any]:
    bots = [_Bot(engine) for _ in range(BOTS)]
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(*(bot.worker for bot in bots))
    running = asyncio.create_task(runner.run())
    await asyncio.gather(*(bot.started.wait() for bot in bots))
    started_s = time.monotonic()
    with LoopMeter() as meter:
        answered = sum(await asyncio.gather(*(bot.talk(QUESTIONS[i % len(QUESTIONS)]) for i, bot in enumerate(bots))))
    for bot in bots:
        await bot.worker.cancel()
    await running
    return {
        "answered": answered,
        "longest_cpu_ms": round(meter.longest.cpu_ms, 1),
        "p99_ms": round(meter.percentile_ms(0.99), 1),
        "slowest_ms": round(meter.slowest.wall_ms, 1),
        "pings": meter.pings,
        "took_s": round(time.monotonic() - started_s, 1),
    }


class _Bot:
    def __init__(self, engine: Engine) -> None:
        self.started, self._answered = asyncio.Event(), asyncio.Event()
        self._context = LLMContext()
        user, assistant = LLMContextAggregatorPair(self._context)
        llm = VoiceLLMService(engine=engine, settings=VoiceLLMService.Settings(max_tokens=24), eager_turns=False)
        pipeline = Pipeline([user, llm, assistant])
        self.worker = PipelineWorker(pipeline, cancel_on_idle_timeout=False, enable_rtvi=False)

        async def on_started(*_: Any) -> None:
            self.started.set()

        async def on_answered(*_: Any) -> None:
            self._answered.set()

        self.worker.add_event_handler("on_pipeline_started", on_started)
        assistant.add_event_handler("on_assistant_turn_stopped", on_answered)

    async def talk(self, questions: Any) -> int:
        """Ask one question after the other; returns how many were answered."""
        answered = 0
        for text in questions[:TURNS]:
            self._answered.clear()
            messages: list[Any] = [{"role": "user", "content": text}]
            await self.worker.queue_frame(LLMMessagesAppendFrame(messages=messages, run_llm=True))
            await asyncio.wait_for(self._answered.wait(), _PATIENCE_S)
            answered += bool(self._context.messages[-1].get("content"))  # type: ignore[union-attr]
        return answered


async def _keep_busy() -> None:
    while True:
        until_s = time.thread_time() + _BUSY_S
        while time.thread_time() < until_s:
            pass
        await asyncio.sleep(_BUSY_S)
