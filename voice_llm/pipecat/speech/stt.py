"""LocalWhisperSTT: speech to text on a Whisper model that all calls share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    StartFrame,
    TranscriptionFrame,
    UserAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.settings import STTSettings
from pipecat.services.stt_service import STTService
from pipecat.services.whisper.stt import language_to_whisper_language
from pipecat.transcriptions.language import Language
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.time import time_now_iso8601
from pipecat.utils.tracing.service_decorators import traced_stt
from pipecat.utils.types import NOT_GIVEN, NotGiven, assert_given

from ...errors import ConfigError
from .segment import SpeechSegment
from .whisper import SAMPLE_RATE_HZ, SharedWhisper, Transcription
from .workers import Priority

__all__ = ["LocalWhisperSTT", "LocalWhisperSTTSettings"]

# An interim pass cannot be stopped, so it may hold the final one back for as long as it takes: not longer than this.
MAX_INTERIM_PASS_S = 0.35
# While sound is this young, the caller is in the middle of speaking.
SPEAKING_S = 0.06


@dataclass
class LocalWhisperSTTSettings(STTSettings):
    """Settings of LocalWhisperSTT.

    Parameters:
        no_speech_prob: Segments that Whisper takes for noise with at least this probability give no transcript.
    """

    no_speech_prob: float | NotGiven = field(default_factory=lambda: NOT_GIVEN)


@dataclass(frozen=True)
class _LookAhead:
    """A pass over the segment as far as it had come, before the VAD has ended it."""

    result: Future[Transcription]
    heard_s: float


@dataclass(frozen=True)
class _Final:
    """What becomes a final transcript; with the samples, for a thorough pass, where it was a quick one."""

    result: Future[Transcription]
    samples: npt.NDArray[np.float32] | None = None


class LocalWhisperSTT(STTService):
    """Transcribes each stretch of speech between two VAD pauses, most of it before the VAD reports the pause.

    As soon as a pause begins, what was said is transcribed on the chance that the pause lasts: if it does, that is the
    final transcript; if speech goes on, it is dropped. During longer speech, and in each pause, interim transcripts are
    pushed, for ``EarlyPrefill``.

    Args:
        whisper: The loaded model, shared by all calls.
        settings: Language (English by default) and noise threshold.
        early_pass_s: Seconds of quiet after which the early pass begins; None waits for the VAD.
        interim_interval_s: Seconds of new speech after which the next interim pass may begin, where the model is idle;
            None for no interim transcripts.
        ttfs_p99_latency: As for ``STTService``: seconds from the end of speech to the final transcript. A turn ends
            without the transcript of its last words after that time, so it suits a busy machine.
        **kwargs: For ``STTService``.
    """

    Settings = LocalWhisperSTTSettings
    _settings: LocalWhisperSTTSettings

    def __init__(
        self,
        *,
        whisper: SharedWhisper,
        settings: LocalWhisperSTTSettings | None = None,
        early_pass_s: float | None = 0.1,
        interim_interval_s: float | None = 1.0,
        ttfs_p99_latency: float = 1.5,
        **kwargs: Any,
    ) -> None:
        defaults = LocalWhisperSTTSettings(model=whisper.name, language=Language.EN, no_speech_prob=0.6)
        if settings is not None:
            defaults.apply_update(settings)
        super().__init__(settings=defaults, ttfs_p99_latency=ttfs_p99_latency, **kwargs)
        self._whisper = whisper
        self._early_pass_s = early_pass_s
        self._interim_interval_s = interim_interval_s
        self._segment = SpeechSegment(SAMPLE_RATE_HZ)
        self._vad_speaking = False
        self._look_ahead: _LookAhead | None = None
        self._finals: asyncio.Queue[_Final | None] = asyncio.Queue()
        self._finals_task: asyncio.Task[None] | None = None
        self._interim_tasks: set[asyncio.Task[None]] = set()
        if problem := self._language_problem():
            raise ConfigError(problem, param="language")

    def can_generate_metrics(self) -> bool:
        """Return True: TTFB, processing time and seconds of audio are reported."""
        return True

    def language_to_service_language(self, language: Language) -> str | None:
        """Return Whisper's code of the language."""
        return language_to_whisper_language(language)

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as in FrameProcessor
        """Learn the sample rate."""
        await super().setup(setup)
        self._segment = SpeechSegment(self.sample_rate)

    async def start(self, frame: StartFrame) -> None:
        """Begin to push final transcripts in the order of speech."""
        await super().start(frame)
        self._finals_task = self.create_task(self._push_finals(), name="finals")

    async def stop(self, frame: EndFrame) -> None:
        """Push what is still being transcribed, then stop."""
        if self._finals_task is not None:
            self._finals.put_nowait(None)
            await self._finals_task
            self._finals_task = None
        await super().stop(frame)

    async def cancel(self, frame: CancelFrame) -> None:
        """Stop at once."""
        await self._drop_everything()
        await super().cancel(frame)

    async def cleanup(self) -> None:
        """Drop what was not transcribed; once more is harmless."""
        await self._drop_everything()
        await super().cleanup()

    async def process_audio_frame(self, frame: InputAudioRawFrame, direction: FrameDirection) -> None:
        """Collect audio, and begin a look-ahead pass where one may pay."""
        if self._muted or not self.is_usable:
            return
        self._user_id = frame.user_id if isinstance(frame, UserAudioRawFrame) else ""
        self._segment.add(frame.audio)
        if self._vad_speaking:
            self._consider_look_ahead()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Follow the VAD; every frame goes on at once."""
        await super().process_frame(frame, direction)
        if isinstance(frame, VADUserStartedSpeakingFrame):
            self._vad_speaking = True
            self._segment.start()
        elif isinstance(frame, VADUserStoppedSpeakingFrame):
            self._vad_speaking = False
            await self._finish_segment(frame.stop_secs)

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Transcribe one stretch of 16-bit mono audio at the service's sample rate."""
        samples = np.frombuffer(audio, np.int16).astype(np.float32) / 32768.0
        yield self._final_frame(await asyncio.wrap_future(self._submit(samples, Priority.AWAITED)))

    async def _update_settings(self, delta: STTSettings) -> dict[str, Any]:  # type: ignore[override]  # as in STTService
        changed = await super()._update_settings(delta)
        if "language" in changed and (problem := self._language_problem()):
            self._settings.language = changed.pop("language")
            await self.push_error(problem, category=ErrorCategory.APPLICATION)
        if "model" in changed:
            self._warn_unhandled_updated_settings({"model"})
        return changed

    def _language_problem(self) -> str | None:
        language = assert_given(self._settings.language)
        if language is None or language in self._whisper.languages:
            return None
        known = "English only" if len(self._whisper.languages) == 1 else f"{len(self._whisper.languages)} languages"
        return f"the Whisper model {self._whisper.name} knows {known}, not {language}: load a multilingual model"

    def _submit(self, samples: npt.NDArray[np.float32], priority: Priority) -> Future[Transcription]:
        return self._whisper.submit(
            samples,
            sample_rate_hz=self.sample_rate or SAMPLE_RATE_HZ,
            language=str(assert_given(self._settings.language) or "en"),
            priority=priority,
            retry=priority is Priority.AWAITED,
        )

    def _consider_look_ahead(self) -> None:
        segment, heard_s = self._segment, self._look_ahead.heard_s if self._look_ahead else 0.0
        if self._early_pass_s is not None and segment.pause_s >= self._early_pass_s:
            if heard_s < segment.speech_end_s:
                self._begin_look_ahead(Priority.LIKELY)
        elif (
            self._interim_interval_s is not None
            and segment.pause_s < SPEAKING_S
            and segment.duration_s - heard_s >= self._interim_interval_s
            and self._whisper.expected_pass_s <= MAX_INTERIM_PASS_S
            and self._whisper.is_idle
        ):
            self._begin_look_ahead(Priority.SPARE)

    def _begin_look_ahead(self, priority: Priority) -> None:
        self._drop_look_ahead()
        samples = self._segment.samples()
        look_ahead = _LookAhead(self._submit(samples, priority), self._segment.duration_s)
        self._look_ahead = look_ahead
        task = self.create_task(self._push_interim(look_ahead), name="interim")
        self._interim_tasks.add(task)
        task.add_done_callback(self._interim_tasks.discard)

    async def _push_interim(self, look_ahead: _LookAhead) -> None:
        try:
            heard = await asyncio.wrap_future(look_ahead.result)
        except Exception:
            return  # the final pass meets the same error, and reports it
        # Never after the final transcript of its segment, which would seem to have more to follow.
        if look_ahead is self._look_ahead and heard.text and not heard.is_doubtful:
            language = assert_given(self._settings.language)
            await self.push_frame(
                InterimTranscriptionFrame(heard.text, self._user_id, time_now_iso8601(), language)  # type: ignore[arg-type]  # a code of Whisper's
            )

    async def _finish_segment(self, vad_stop_s: float) -> None:
        look_ahead, self._look_ahead = self._look_ahead, None
        # Two judges of where speech ended: loudness, and the VAD, which also hears what is not louder than the line.
        speech_end_s = max(self._segment.speech_end_s, self._segment.duration_s - vad_stop_s)
        samples = self._segment.take()
        if not self.is_usable or self._muted or not len(samples):
            if look_ahead is not None:
                look_ahead.result.cancel()
            return
        self._stt_usage_pending_seconds += len(samples) / self._segment.sample_rate_hz
        await self.emit_stt_usage_metrics()
        await self.start_processing_metrics()
        waits = look_ahead is not None and look_ahead.result.cancel()  # one that has begun goes on
        if look_ahead is not None and not waits and look_ahead.heard_s >= speech_end_s:
            self._finals.put_nowait(_Final(look_ahead.result, samples))
            return
        # Now somebody is waiting for it, so it may overtake.
        self._finals.put_nowait(_Final(self._submit(samples, Priority.AWAITED)))

    async def _push_finals(self) -> None:
        while (final := await self._finals.get()) is not None:
            try:
                frame = self._final_frame(await self._heard(final))
            except Exception as e:
                await self.push_error(f"speech could not be transcribed: {e}", exception=e)
                continue
            await self.stop_processing_metrics()
            if frame is not None:
                await self._handle_transcription(frame.text, True, frame.language)
                await self.push_frame(frame)

    async def _heard(self, final: _Final) -> Transcription:
        heard = await asyncio.wrap_future(final.result)
        if heard.is_doubtful and final.samples is not None:
            return await asyncio.wrap_future(self._submit(final.samples, Priority.AWAITED))
        return heard

    def _final_frame(self, heard: Transcription) -> TranscriptionFrame | None:
        threshold = assert_given(self._settings.no_speech_prob)
        if heard.no_speech_prob >= threshold or not any(character.isalnum() for character in heard.text):
            return None
        language = assert_given(self._settings.language)
        return TranscriptionFrame(heard.text, self._user_id, time_now_iso8601(), language, finalized=True)  # type: ignore[arg-type]  # a code of Whisper's

    @traced_stt
    async def _handle_transcription(self, transcript: str, is_final: bool, language: Language | None = None) -> None:
        """Give the transcript to tracing."""

    def _drop_look_ahead(self) -> None:
        if self._look_ahead is not None:
            self._look_ahead.result.cancel()
            self._look_ahead = None

    async def _drop_everything(self) -> None:
        self._drop_look_ahead()
        for task in list(self._interim_tasks):
            await self.cancel_task(task)
        if self._finals_task is not None:
            await self.cancel_task(self._finals_task)
            self._finals_task = None
