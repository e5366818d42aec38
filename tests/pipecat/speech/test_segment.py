"""SpeechSegment keeps what was said and finds where a pause began."""

from __future__ import annotations

import numpy as np
import pytest

from voice_llm.pipecat.speech.segment import SpeechSegment

pytestmark = pytest.mark.unit

RATE_HZ = 16000


def tone(seconds: float, amplitude: float = 0.3) -> bytes:
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * 220 * t) * 32767).astype(np.int16).tobytes()


def noise(seconds: float, amplitude: float = 0.01) -> bytes:
    generator = np.random.default_rng(1)
    return (generator.normal(0, amplitude, int(seconds * RATE_HZ)) * 32767).astype(np.int16).tobytes()


def test_before_the_start_only_the_newest_audio_is_kept() -> None:
    segment = SpeechSegment(RATE_HZ, pre_roll_s=0.5)
    segment.add(tone(3.0))
    segment.start()
    segment.add(tone(1.0))

    assert segment.duration_s == pytest.approx(1.5)


@pytest.mark.parametrize("chunk_bytes", [640, 320, 962, 6400])
def test_a_pause_is_measured_from_the_last_sound(chunk_bytes: int) -> None:
    segment = SpeechSegment(RATE_HZ, pre_roll_s=0.0)
    segment.add(noise(1.0))
    segment.start()
    audio = tone(1.0) + noise(0.3)
    for i in range(0, len(audio), chunk_bytes):
        segment.add(audio[i : i + chunk_bytes])

    assert segment.speech_end_s == pytest.approx(1.0, abs=0.021)
    assert segment.pause_s == pytest.approx(0.3, abs=0.041)


def test_a_noisy_line_does_not_hide_a_pause() -> None:
    segment = SpeechSegment(RATE_HZ)
    segment.add(noise(2.0, 0.03))
    segment.add(tone(0.2, 0.2))  # a VAD needs some speech to notice it
    segment.start()
    segment.add(tone(1.0, 0.2))
    segment.add(noise(0.3, 0.03))

    assert segment.pause_s == pytest.approx(0.3, abs=0.021)


def test_quiet_speech_after_loud_speech_is_speech() -> None:
    segment = SpeechSegment(RATE_HZ)
    segment.add(noise(0.5))
    segment.start()
    segment.add(tone(1.0, 0.5))
    segment.add(tone(0.5, 0.1))

    assert segment.pause_s == pytest.approx(0.0, abs=0.021)


def test_taking_returns_the_samples_and_begins_anew() -> None:
    segment = SpeechSegment(RATE_HZ, pre_roll_s=0.2)
    segment.start()
    segment.add(tone(1.0))
    samples = segment.take()

    assert samples.dtype == np.float32
    assert len(samples) == RATE_HZ
    assert 0.29 < np.abs(samples).max() < 0.31
    assert segment.duration_s == 0.0
    segment.add(tone(1.0))
    assert segment.duration_s == pytest.approx(0.2)
