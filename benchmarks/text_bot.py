"""One text-mode bot with one language-model service, and a caller who types as a streaming recogniser hears.

Prints each turn as a line of JSON. ``pipecat_text.py`` runs it once for each service, in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InterimTranscriptionFrame,
    LLMFullResponseEndFrame,
    LLMTextFrame,
    MetricsFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import LLMTokenUsage, LLMUsageMetricsData
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.turns.types import ProcessFrameResult
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import BaseUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner

from voice_llm import Engine, Profile
from voice_llm.pipecat import EarlyPrefill, VoiceLLMService
from voice_llm.prompt.layout import arrange
from voice_llm.prompt.messages import Message

from .common import PROFILE, THREADS
from .pipecat_text import ARMS
from .questions import CALLS

MAX_TOKENS: Final = 48
_FACTS: Final = Path(__file__).parent.parent / "pipelines" / "demo" / "insurance_context.txt"
_WORDS_PER_S: Final = 2.5
_INTERIM_S: Final = 0.3
_TURN_DETECTION_S: Final = 0.3  # from the caller's last word to the final transcript, which ends the turn
_LISTENING_S: Final = 1.5  # after a reply's text: real callers hear it out, which takes longer


@dataclass(slots=True)
class TextTurn:
    """One turn, with what the service reported.

    Attributes:
        call: Number of the call.
        said: The caller's words.
        reply: The bot's.
        first_text_ms: From the end of the turn to the first text out of the service.
        reply_ms: From the end of the turn to the end of the reply.
        prompt_tokens: Length of the prompt.
        cached_tokens: What of it needed no computing after the turn's end.
        completion_tokens: Length of the reply.
    """

    call: int
    said: str
    reply: str = ""
    first_text_ms: float | None = None
    reply_ms: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


def main() -> None:
    """Run one bot and print its turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", choices=ARMS, required=True)
    parser.add_argument("--url", help="OpenAI URL of the peer, for the stock arm")
    parser.add_argument("--turns", type=int, required=True)
    parser.add_argument("--first-call", type=int, default=0, help="where in the script to begin")
    parser.add_argument("--threads", type=int, default=THREADS)
    args = parser.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    asyncio.run(_run(args))


async def _run(args: argparse.Namespace) -> None:
    async with _services(args) as services:
        # One turn that does not count: everything is loaded, compiled and connected then.
        await _hold_call(next(services), [TextTurn(-1, "Can you hear me?")], args.arm)
        for call, turns in enumerate(_script(args.turns, args.first_call)):
            for turn in turns:
                turn.call = args.first_call + call
            await _hold_call(next(services), turns, args.arm)
            for turn in turns:
                print(json.dumps(asdict(turn), ensure_ascii=False), flush=True)


def _script(turns: int, first_call: int) -> Iterator[list[TextTurn]]:
    """Yield calls until there are so many turns; the script begins again where it ends."""
    call = first_call
    while turns > 0:
        said = CALLS[call % len(CALLS)][:turns]
        yield [TextTurn(call, words) for words in said]
        turns -= len(said)
        call += 1


@asynccontextmanager
async def _services(args: argparse.Namespace) -> AsyncIterator[Iterator[Any]]:
    """Make services, one a call, with the same system message and sampling in both."""
    facts = _FACTS.read_text().strip()
    if args.arm == "stock":
        system = Message("system", Profile.load(PROFILE).system_prompt)
        settings = OpenAILLMService.Settings(
            model="peer",
            system_instruction=arrange([system], facts)[0].content,
            temperature=0.0,
            max_tokens=MAX_TOKENS,
        )
        yield (OpenAILLMService(api_key="none", base_url=args.url, settings=settings) for _ in iter(int, 1))
        return
    async with await Engine.load(PROFILE, threads=args.threads, threads_batch=args.threads) as engine:
        ours = VoiceLLMService.Settings(rag_context=facts, temperature=0.0, max_tokens=MAX_TOKENS)
        yield (VoiceLLMService(engine=engine, settings=ours, eager_turns=False) for _ in iter(int, 1))


async def _hold_call(llm: Any, turns: list[TextTurn], arm: str) -> None:
    """Hold one call in a pipeline of its own; the turns are filled in."""
    context = LLMContext()
    strategies = UserTurnStrategies(start=[VADUserTurnStartStrategy()], stop=[FinalTranscriptStop()])
    aggregators = LLMContextAggregatorPair(
        context, user_params=LLMUserAggregatorParams(user_turn_strategies=strategies)
    )
    ear = Ear()
    tap = [EarlyPrefill(llm)] if arm == "voice_llm_transcripts" else []
    pipeline = Pipeline([*tap, aggregators.user(), llm, ear, aggregators.assistant()])
    worker = PipelineWorker(
        pipeline, params=PipelineParams(enable_metrics=True, enable_usage_metrics=True), enable_rtvi=False
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)

    async def talk() -> None:
        try:
            for turn in turns:
                await _take_turn(worker, ear, turn)
        finally:
            await worker.queue_frame(EndFrame())

    await asyncio.gather(runner.run(), talk())


async def _take_turn(worker: PipelineWorker, ear: Ear, turn: TextTurn) -> None:
    """Say a line at speaking pace, and wait for the reply."""
    spoken = ear.listen(turn)
    await worker.queue_frame(VADUserStartedSpeakingFrame(start_secs=0.2))
    await _say(worker, turn.said.split())
    await worker.queue_frame(VADUserStoppedSpeakingFrame(stop_secs=0.2))
    ear.turn_end_s = time.perf_counter()
    await worker.queue_frame(TranscriptionFrame(turn.said, "caller", time_now_iso8601(), finalized=True))
    await asyncio.wait_for(spoken, 60.0)
    await asyncio.sleep(_LISTENING_S)


async def _say(worker: PipelineWorker, words: list[str]) -> None:
    """Let the words appear in interim transcripts as they are spoken; the last one has them all."""
    said_s = len(words) / _WORDS_PER_S
    started_s = time.perf_counter()
    ticks = int((said_s + _TURN_DETECTION_S) / _INTERIM_S)
    for tick in range(1, ticks + 1):
        await asyncio.sleep(max(0.0, started_s + tick * _INTERIM_S - time.perf_counter()))
        if heard := words[: int(tick * _INTERIM_S * _WORDS_PER_S)]:
            await worker.queue_frame(InterimTranscriptionFrame(" ".join(heard), "caller", time_now_iso8601()))
    await asyncio.sleep(max(0.0, started_s + said_s + _TURN_DETECTION_S - time.perf_counter()))


class FinalTranscriptStop(BaseUserTurnStopStrategy):
    """Ends the turn at its final transcript, which is what a bot waits for once it has decided by the sound."""

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        """See ``BaseUserTurnStopStrategy``."""
        if isinstance(frame, TranscriptionFrame) and frame.finalized:
            await self.trigger_user_turn_stopped()
        return ProcessFrameResult.CONTINUE


class Ear(FrameProcessor):
    """Notes when a reply's text comes out of the service.

    Attributes:
        turn_end_s: When the present turn ended, by ``time.perf_counter``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turn_end_s = 0.0
        self._turn = TextTurn(-1, "")
        self._spoken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = False

    def listen(self, turn: TextTurn) -> asyncio.Future[None]:
        """Fill in this turn from now on; returns what is done when reply and usage have come."""
        self._turn, self._ended = turn, False
        self._spoken = asyncio.get_running_loop().create_future()
        return self._spoken

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Note the frame and let it go on."""
        now_ms = (time.perf_counter() - self.turn_end_s) * 1e3
        await super().process_frame(frame, direction)
        turn = self._turn
        if isinstance(frame, LLMTextFrame):
            if turn.first_text_ms is None:
                turn.first_text_ms = now_ms
            turn.reply += frame.text
        elif isinstance(frame, LLMFullResponseEndFrame):
            turn.reply_ms, self._ended = now_ms, True
        elif isinstance(frame, MetricsFrame):
            for data in frame.data:
                if isinstance(data, LLMUsageMetricsData):
                    self._note_usage(data.value)
        await self.push_frame(frame, direction)
        if self._ended and turn.prompt_tokens is not None and not self._spoken.done():
            self._spoken.set_result(None)

    def _note_usage(self, usage: LLMTokenUsage) -> None:
        self._turn.prompt_tokens = usage.prompt_tokens
        self._turn.cached_tokens = usage.cache_read_input_tokens
        self._turn.completion_tokens = usage.completion_tokens


if __name__ == "__main__":
    main()
