"""A whole bot for tests: real aggregators, real turn controller, real output transport, and a voice without sound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from pipecat.audio.turn.base_turn_analyzer import BaseTurnAnalyzer, BaseTurnParams, EndOfTurnState
from pipecat.audio.vad.vad_analyzer import VAD_STOP_SECS
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    OutputAudioRawFrame,
    StartFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import MetricsData
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.aggregators.llm_text_processor import LLMTextProcessor
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from voice_llm.pipecat import EagerTurnStopStrategy, EarlyPrefill, PassthroughAggregator, VoiceLLMService

_PATIENCE_S: Final = 10.0
_SAMPLE_RATE: Final = 8000
_SENTENCE_MS: Final = 40


class Verdicts(BaseTurnAnalyzer):
    """A turn detector that says what the test wants."""

    def __init__(self) -> None:
        super().__init__(sample_rate=16000)
        self.verdict = EndOfTurnState.COMPLETE
        self.decided = asyncio.Event()
        self.decided.set()

    @property
    def speech_triggered(self) -> bool:
        return False

    @property
    def params(self) -> BaseTurnParams:
        return BaseTurnParams()

    def append_audio(self, buffer: bytes, is_speech: bool) -> EndOfTurnState:
        return EndOfTurnState.INCOMPLETE

    async def analyze_end_of_turn(self) -> tuple[EndOfTurnState, MetricsData | None]:
        await self.decided.wait()
        return self.verdict, None

    def clear(self) -> None:
        pass


class Voice(TTSService):
    """A voice like Piper: one text in, some audio out, no word timestamps. Remembers what it was asked to say."""

    def __init__(self) -> None:
        settings = TTSSettings(model=None, voice=None, language=None)
        super().__init__(push_start_frame=True, push_stop_frames=True, sample_rate=_SAMPLE_RATE, settings=settings)
        self.said: list[str] = []

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        self.said.append(text)
        audio = bytes(_SAMPLE_RATE * 2 * _SENTENCE_MS // 1000)
        yield TTSAudioRawFrame(audio=audio, sample_rate=_SAMPLE_RATE, num_channels=1, context_id=context_id)


class Speaker(BaseOutputTransport):
    """A phone line on which audio is played as far as the test allows, in pieces of 10 ms."""

    def __init__(self) -> None:
        super().__init__(TransportParams(audio_out_enabled=True, audio_out_10ms_chunks=1))
        self.allowed = asyncio.Semaphore(0)

    def play(self, sentences: float) -> None:
        """Let so many sentences be played."""
        for _ in range(round(sentences * _SENTENCE_MS / 10)):
            self.allowed.release()

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        await self.allowed.acquire()
        return True


class Recorder(BaseObserver):
    """Every frame that was pushed, in order: ``frames`` by the first who pushed it, ``pushed`` by each."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[FrameProcessor, Frame]] = []
        self.pushed: list[tuple[FrameProcessor, Frame]] = []
        self._seen: set[int] = set()

    async def on_push_frame(self, data: FramePushed) -> None:
        self.pushed.append((data.source, data.frame))
        if data.frame.id not in self._seen:
            self._seen.add(data.frame.id)
            self.frames.append((data.source, data.frame))

    def of(self, *kinds: type[Frame]) -> list[Frame]:
        return [frame for _, frame in self.frames if isinstance(frame, kinds)]


class Bot:
    """A running pipeline, and what a caller does to it."""

    def __init__(self, llm: VoiceLLMService, *, tools: Sequence[Any] = (), shows_words: bool = True) -> None:
        self.llm = llm
        self.context = LLMContext(tools=list(tools)) if tools else LLMContext()
        self.verdicts = Verdicts()
        self.voice = Voice()
        self.speaker = Speaker()
        self.recorder = Recorder()
        stop = EagerTurnStopStrategy(turn_analyzer=self.verdicts)
        params = LLMUserAggregatorParams(user_turn_strategies=UserTurnStrategies(stop=[stop]))
        aggregators = LLMContextAggregatorPair(self.context, user_params=params)
        pipeline = Pipeline(
            [
                *([EarlyPrefill(llm)] if shows_words else []),
                aggregators.user(),
                llm,
                LLMTextProcessor(text_aggregator=PassthroughAggregator()),
                self.voice,
                self.speaker,
                aggregators.assistant(),
            ]
        )
        self.worker = PipelineWorker(
            pipeline,
            cancel_on_idle_timeout=False,
            enable_rtvi=False,
            observers=[self.recorder],
            params=PipelineParams(audio_out_sample_rate=_SAMPLE_RATE, enable_metrics=True, enable_usage_metrics=True),
        )

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [dict(message) for message in self.context.messages]  # type: ignore[arg-type]

    async def start_speaking(self) -> None:
        await self.worker.queue_frame(VADUserStartedSpeakingFrame(start_secs=0.2))

    async def hear(self, text: str, *, interim: bool = False) -> None:
        if interim:
            await self.worker.queue_frame(InterimTranscriptionFrame(text=text, user_id="", timestamp=""))
            return
        frame = TranscriptionFrame(text=text, user_id="", timestamp="")
        frame.finalized = True
        await self.worker.queue_frame(frame)

    async def stop_speaking(self) -> None:
        await self.worker.queue_frame(VADUserStoppedSpeakingFrame(stop_secs=VAD_STOP_SECS))

    async def say(self, text: str) -> None:
        """One whole turn: speech, silence, transcript."""
        await self.start_speaking()
        await self.stop_speaking()
        await self.hear(text)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something to become true."""
        async with asyncio.timeout(_PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.005)

    async def until_said(self, count: int) -> None:
        await self.until(lambda: len(self.voice.said) >= count, f"{count} texts to be spoken")

    async def silence(self) -> None:
        """Wait until nothing has been pushed for a while."""
        seen = -1
        while seen != len(self.recorder.frames):
            seen = len(self.recorder.frames)
            await asyncio.sleep(0.1)


@asynccontextmanager
async def calling(bot: Bot) -> AsyncIterator[Bot]:
    """Run the bot's pipeline; at the end it has been cleaned up."""
    started = asyncio.Event()

    @bot.worker.event_handler("on_pipeline_started")  # type: ignore[untyped-decorator]
    async def on_started(worker: Any, frame: Any) -> None:
        started.set()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(bot.worker)
    running = asyncio.create_task(runner.run())
    try:
        await asyncio.wait_for(started.wait(), _PATIENCE_S)
        yield bot
    finally:
        bot.speaker.play(1000)
        await bot.worker.cancel()
        await asyncio.wait_for(running, _PATIENCE_S)


__all__ = ["Bot", "InputAudioRawFrame", "Voice", "calling"]
