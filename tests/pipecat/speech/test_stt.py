"""LocalWhisperSTT transcribes in pauses before the VAD reports them, and never shows a stale transcript."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    MetricsFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import STTUsageMetricsData, TTFBMetricsData
from pipecat.pipeline.worker import PipelineParams
from pipecat.tests.utils import SleepFrame, run_test

from voice_llm.errors import ConfigError
from voice_llm.pipecat.speech import LocalWhisperSTT, SharedWhisper, Transcription
from voice_llm.pipecat.speech.workers import Priority

from .conftest import Samples, silence, words

pytestmark = pytest.mark.model

QUESTION = "When do I need to report the damage?"
ADDITION = "How much is the deductible?"


class WatchedWhisper:
    """The real model; notes each pass that is asked for, as priority and seconds of audio."""

    def __init__(self, whisper: SharedWhisper) -> None:
        self._whisper = whisper
        self.passes: list[tuple[Priority, float]] = []
        self.cancelled = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whisper, name)

    def submit(self, samples: Samples, *, priority: Priority, **options: Any) -> Future[Transcription]:
        self.passes.append((priority, len(samples) / 16000))
        return self._whisper.submit(samples, priority=priority, **options)


@pytest.fixture
def watched(whisper: SharedWhisper) -> WatchedWhisper:
    return WatchedWhisper(whisper)


def stt_on(whisper: Any, **options: Any) -> LocalWhisperSTT:
    return LocalWhisperSTT(whisper=whisper, **options)


def audio(samples: Samples, rate_hz: int = 16000) -> Iterator[Frame]:
    pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
    step = rate_hz // 50 * 2
    for i in range(0, len(pcm), step):
        yield InputAudioRawFrame(audio=pcm[i : i + step], sample_rate=rate_hz, num_channels=1)


def spoken(samples: Samples, pause_s: float = 0.2, rate_hz: int = 16000) -> list[Frame]:
    """What a VAD makes of speech: it notices the start 0.2 s late, and the end after ``pause_s``."""
    lead = int(0.2 * rate_hz)
    return [
        *audio(samples[:lead], rate_hz),
        VADUserStartedSpeakingFrame(start_secs=0.2),
        *audio(np.concatenate([samples[lead:], silence(pause_s)[:: 16000 // rate_hz]]), rate_hz),
        VADUserStoppedSpeakingFrame(stop_secs=0.2),
    ]


async def frames_from(stt: LocalWhisperSTT, frames: list[Frame], rate_hz: int = 16000) -> list[Frame]:
    params = PipelineParams(audio_in_sample_rate=rate_hz, enable_metrics=True, enable_usage_metrics=True)
    down, up = await run_test(stt, frames_to_send=frames, pipeline_params=params)
    return [*down, *(frame for frame in up if isinstance(frame, ErrorFrame))]


def finals(frames: list[Frame]) -> list[TranscriptionFrame]:
    return [frame for frame in frames if isinstance(frame, TranscriptionFrame)]


def interims(frames: list[Frame]) -> list[InterimTranscriptionFrame]:
    return [frame for frame in frames if isinstance(frame, InterimTranscriptionFrame)]


async def test_speech_becomes_one_finalized_transcript(
    whisper: SharedWhisper, telephone: Callable[[str], Samples]
) -> None:
    frames = await frames_from(stt_on(whisper), spoken(telephone(QUESTION)))

    (final,) = finals(frames)
    assert words(final.text) == words(QUESTION)
    assert final.finalized
    metrics = [data for frame in frames if isinstance(frame, MetricsFrame) for data in frame.data]
    assert any(isinstance(data, TTFBMetricsData) for data in metrics)
    assert any(isinstance(data, STTUsageMetricsData) for data in metrics)


async def test_a_pipeline_at_8_khz_is_heard_as_well(
    whisper: SharedWhisper, telephone: Callable[[str], Samples]
) -> None:
    frames = await frames_from(stt_on(whisper), spoken(telephone(QUESTION)[::2], rate_hz=8000), rate_hz=8000)

    assert [words(final.text) for final in finals(frames)] == [words(QUESTION)]


async def test_a_pass_that_has_not_begun_at_the_end_of_speech_is_asked_for_anew_as_awaited(
    watched: WatchedWhisper, telephone: Callable[[str], Samples]
) -> None:
    for _ in range(2):  # the model is busy with other calls
        watched.submit(np.zeros(16000 * 12, np.float32), priority=Priority.AWAITED)
    frames = await frames_from(stt_on(watched, interim_interval_s=None), spoken(telephone(QUESTION)))

    assert [words(final.text) for final in finals(frames)] == [words(QUESTION)]
    assert watched.passes[-1][0] is Priority.AWAITED


async def test_the_pass_begun_in_the_pause_is_the_final_one_when_the_pause_lasts(
    whisper: SharedWhisper, telephone: Callable[[str], Samples]
) -> None:
    class Prompt(WatchedWhisper):
        """Begins each pass at once, as an idle model does; here speech is faster than it could be heard."""

        def submit(self, samples: Samples, *, priority: Priority, **options: Any) -> Future[Transcription]:
            future = super().submit(samples, priority=priority, **options)
            while not (future.running() or future.done()):
                time.sleep(0.001)
            return future

    prompt = Prompt(whisper)
    speech = telephone(QUESTION)
    frames = await frames_from(stt_on(prompt, interim_interval_s=None), spoken(speech))

    assert [words(final.text) for final in finals(frames)] == [words(QUESTION)]
    priority, heard_s = prompt.passes[-1]
    assert priority is Priority.LIKELY
    assert heard_s < len(speech) / 16000 + 0.2  # begun before the VAD reported the pause


async def test_the_pass_begun_in_a_pause_is_dropped_when_speech_goes_on(
    watched: WatchedWhisper, telephone: Callable[[str], Samples]
) -> None:
    both = np.concatenate([telephone(QUESTION), silence(0.1), telephone(ADDITION)])
    frames = await frames_from(stt_on(watched, interim_interval_s=None), spoken(both))

    (final,) = finals(frames)
    assert words(final.text) == words(f"{QUESTION} {ADDITION}")
    assert len(watched.passes) >= 2
    assert watched.passes[-1][1] > len(both) / 16000


async def test_without_early_passes_the_vad_is_waited_for(
    watched: WatchedWhisper, telephone: Callable[[str], Samples]
) -> None:
    frames = await frames_from(stt_on(watched, early_pass_s=None, interim_interval_s=None), spoken(telephone(QUESTION)))

    assert [priority for priority, _ in watched.passes] == [Priority.AWAITED]
    assert len(finals(frames)) == 1
    assert not interims(frames)


async def test_interim_transcripts_come_while_the_caller_speaks(
    watched: WatchedWhisper, telephone: Callable[[str], Samples]
) -> None:
    speech = telephone(QUESTION)
    frames = spoken(speech)
    # The caller goes on after a second, once the interim pass has had time to end.
    frames.insert(75, SleepFrame(sleep=0.5))
    received = await frames_from(stt_on(watched, early_pass_s=None), frames)

    assert watched.passes[0][0] is Priority.SPARE
    assert words(interims(received)[0].text)[:3] == words(QUESTION)[:3]
    assert received.index(interims(received)[-1]) < received.index(finals(received)[0])


async def test_no_interim_pass_begins_while_the_model_is_busy(
    watched: WatchedWhisper, telephone: Callable[[str], Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SharedWhisper, "is_idle", False)
    await frames_from(stt_on(watched, early_pass_s=None), spoken(telephone(QUESTION)))

    assert [priority for priority, _ in watched.passes] == [Priority.AWAITED]


async def test_no_interim_pass_begins_where_it_might_hold_the_final_one_back(
    watched: WatchedWhisper, telephone: Callable[[str], Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SharedWhisper, "expected_pass_s", 0.5)
    await frames_from(stt_on(watched, early_pass_s=None), spoken(telephone(QUESTION)))

    assert [priority for priority, _ in watched.passes] == [Priority.AWAITED]


async def test_a_doubtful_early_pass_is_done_again_thoroughly(
    watched: WatchedWhisper, telephone: Callable[[str], Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voice_llm.pipecat.speech.whisper.MIN_AVG_LOGPROB", 0.0)
    frames = await frames_from(stt_on(watched, interim_interval_s=None), spoken(telephone(QUESTION)))

    assert [priority for priority, _ in watched.passes][-2:] == [Priority.LIKELY, Priority.AWAITED]
    assert [words(final.text) for final in finals(frames)] == [words(QUESTION)]
    assert not interims(frames)


async def test_noise_gives_no_transcript(whisper: SharedWhisper) -> None:
    hiss = np.random.default_rng(0).normal(0, 0.02, 24000).astype(np.float32)
    frames = await frames_from(stt_on(whisper), spoken(hiss))

    assert not finals(frames)


async def test_transcripts_come_in_the_order_of_speech(
    whisper: SharedWhisper, telephone: Callable[[str], Samples]
) -> None:
    frames = await frames_from(stt_on(whisper), [*spoken(telephone(QUESTION)), *spoken(telephone(ADDITION))])

    assert [words(final.text) for final in finals(frames)] == [words(QUESTION), words(ADDITION)]


async def test_two_calls_at_once_share_the_model(whisper: SharedWhisper, telephone: Callable[[str], Samples]) -> None:
    first, second = await asyncio.gather(
        frames_from(stt_on(whisper), spoken(telephone(QUESTION))),
        frames_from(stt_on(whisper), spoken(telephone(ADDITION))),
    )

    assert [words(final.text) for final in finals(first)] == [words(QUESTION)]
    assert [words(final.text) for final in finals(second)] == [words(ADDITION)]


async def test_a_failing_pass_is_reported_and_the_next_one_works(
    whisper: SharedWhisper, telephone: Callable[[str], Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    transcribe, calls = whisper.transcribe, []

    def fails_once(samples: Samples, **options: Any) -> Transcription:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return transcribe(samples, **options)

    monkeypatch.setattr(whisper, "transcribe", fails_once)
    stt = stt_on(whisper, early_pass_s=None, interim_interval_s=None)
    frames = await frames_from(stt, [*spoken(telephone(QUESTION)), SleepFrame(0.1), *spoken(telephone(ADDITION))])

    (error,) = [frame for frame in frames if isinstance(frame, ErrorFrame)]
    assert "out of memory" in error.error
    assert [words(final.text) for final in finals(frames)] == [words(ADDITION)]


async def test_a_language_that_the_model_does_not_know_is_refused(whisper: SharedWhisper) -> None:
    with pytest.raises(ConfigError, match="English only, not tr"):
        stt_on(whisper, settings=LocalWhisperSTT.Settings(language="tr"))


async def test_cleanup_twice_is_harmless(whisper: SharedWhisper, telephone: Callable[[str], Samples]) -> None:
    stt = stt_on(whisper)
    frames = await frames_from(stt, spoken(telephone(QUESTION)))

    await stt.cleanup()
    assert len(finals(frames)) == 1


async def test_a_look_ahead_that_ends_after_its_segment_is_not_shown(
    whisper: SharedWhisper, telephone: Callable[[str], Samples]
) -> None:
    class Slow(WatchedWhisper):
        late: Future[Transcription] | None = None

        def submit(self, samples: Samples, *, priority: Priority, **options: Any) -> Future[Transcription]:
            if self.late is None and priority is not Priority.AWAITED:
                self.late = Future()
                self.late.set_running_or_notify_cancel()
                return self.late
            return super().submit(samples, priority=priority, **options)

    slow = Slow(whisper)
    both = np.concatenate([telephone(QUESTION), silence(0.1), telephone(ADDITION)])

    def frames() -> Iterator[Frame]:
        yield from spoken(both)
        yield SleepFrame(2.0)
        assert slow.late is not None
        slow.late.set_result(Transcription("stale words", -0.1, 0.0, False, 0.1))
        yield SleepFrame(0.1)

    received = await frames_from(stt_on(slow, interim_interval_s=None), frames())  # type: ignore[arg-type]

    assert [words(final.text) for final in finals(received)] == [words(f"{QUESTION} {ADDITION}")]
    assert "stale words" not in [interim.text for interim in interims(received)]
