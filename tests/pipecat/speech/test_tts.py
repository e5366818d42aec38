"""LocalPiperTTS speaks clauses at once, and falls silent at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pipecat.frames.frames import (
    AggregatedTextFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSTextFrame,
)
from pipecat.pipeline.worker import PipelineParams
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.utils.text.base_text_aggregator import TextType

from voice_llm.errors import ConfigError, ModelFileError
from voice_llm.pipecat.speech import LocalPiperTTS, SharedPiper, SharedWhisper

from .conftest import words

pytestmark = pytest.mark.model

SENTENCE = "The deductible is two hundred dollars."


async def speak(piper: SharedPiper, *frames: Frame, rate_hz: int = 8000) -> list[Frame]:
    down, up = await run_test(
        LocalPiperTTS(piper=piper),
        frames_to_send=list(frames),
        pipeline_params=PipelineParams(audio_out_sample_rate=rate_hz, enable_metrics=True),
    )
    return [*down, *(frame for frame in up if isinstance(frame, ErrorFrame))]


def samples_of(frames: list[Frame]) -> np.ndarray:
    pcm = b"".join(frame.audio for frame in frames if isinstance(frame, TTSAudioRawFrame))
    return np.frombuffer(pcm, np.int16).astype(np.float32) / 32768.0


@pytest.mark.parametrize("rate_hz", [8000, 16000])
async def test_what_is_spoken_is_heard_by_whisper(piper: SharedPiper, whisper: SharedWhisper, rate_hz: int) -> None:
    frames = await speak(piper, TTSSpeakFrame(SENTENCE), rate_hz=rate_hz)

    heard = whisper.transcribe(samples_of(frames), sample_rate_hz=rate_hz).text
    assert words(heard.replace("$200", "two hundred dollars"))[1:] == words(SENTENCE)[1:]
    assert all(frame.sample_rate == rate_hz for frame in frames if isinstance(frame, TTSAudioRawFrame))


async def test_speech_begins_at_once(piper: SharedPiper) -> None:
    samples = samples_of(await speak(piper, TTSSpeakFrame(SENTENCE)))

    assert np.flatnonzero(np.abs(samples) > 0.01)[0] < 0.05 * 8000


async def test_each_clause_of_a_reply_is_spoken_on_its_own_and_in_order(piper: SharedPiper) -> None:
    clauses = ["Yes,", "it is covered.", SENTENCE]
    frames = await speak(
        piper,
        LLMFullResponseStartFrame(),
        *(AggregatedTextFrame(clause, text_type=TextType.SENTENCE) for clause in clauses),
        LLMFullResponseEndFrame(),
    )

    order = [frame for frame in frames if isinstance(frame, TTSAudioRawFrame | TTSTextFrame)]
    assert [frame.text for frame in order if isinstance(frame, TTSTextFrame)] == clauses
    assert [type(frame) for frame in order] == [TTSAudioRawFrame, TTSTextFrame] * 3


class SlowPiper:
    """A voice whose every sentence takes as long as the test likes."""

    name = "slow"

    def __init__(self, piper: SharedPiper) -> None:
        self.submit = piper.submit
        self.release = threading.Event()
        self.begun = 0

    def synthesize(self, text: str, sample_rate_hz: int) -> Iterator[bytes]:
        self.begun += 1
        self.release.wait(10)
        yield bytes(320)


async def test_an_interruption_does_not_wait_for_the_synthesis(piper: SharedPiper) -> None:
    slow = SlowPiper(piper)
    arrived: list[float] = []
    sent: list[float] = []

    class Clocked(LocalPiperTTS):
        async def push_frame(self, frame: Frame, *args: object) -> None:
            if isinstance(frame, InterruptionFrame):
                arrived.append(time.monotonic())
                slow.release.set()
            await super().push_frame(frame, *args)  # type: ignore[arg-type]

    class Noted(SleepFrame):
        @property
        def sleep(self) -> float:
            sent.append(time.monotonic())
            return 0.0

        @sleep.setter
        def sleep(self, value: float) -> None: ...

    down, _ = await run_test(
        Clocked(piper=slow),  # type: ignore[arg-type]
        frames_to_send=[TTSSpeakFrame(SENTENCE), SleepFrame(0.1), Noted(), InterruptionFrame(), SleepFrame(0.2)],
    )

    assert slow.begun == 1
    assert arrived[0] - sent[0] < 0.1
    assert not any(isinstance(frame, TTSAudioRawFrame) for frame in down)


async def test_a_failing_synthesis_is_reported(piper: SharedPiper, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str, sample_rate_hz: int) -> Iterator[bytes]:
        raise RuntimeError("no such phoneme")
        yield b""

    monkeypatch.setattr(piper, "synthesize", fail)
    errors = [frame for frame in await speak(piper, TTSSpeakFrame(SENTENCE)) if isinstance(frame, ErrorFrame)]

    assert "no such phoneme" in errors[0].error


async def test_loading_again_gives_the_same_voice(piper: SharedPiper) -> None:
    assert all(voice is piper for voice in await asyncio.gather(*(SharedPiper.load(threads=1) for _ in range(3))))


async def test_a_voice_without_its_settings_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tr_TR-x.onnx").touch()
    with pytest.raises(ModelFileError, match=r"tr_TR-x\.onnx\.json not found"):
        await SharedPiper.load(tmp_path / "tr_TR-x.onnx")


async def test_a_damaged_voice_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_text("nothing")
    (tmp_path / "x.onnx.json").write_text("{}")
    with pytest.raises(ModelFileError, match=r"x\.onnx cannot be loaded"):
        await SharedPiper.load(tmp_path / "x.onnx")


async def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="'tpu'"):
        await SharedPiper.load(device="tpu")
