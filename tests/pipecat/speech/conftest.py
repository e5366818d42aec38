"""Loaded speech models, and speech as it arrives over a telephone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import soxr
from piper import SynthesisConfig

from voice_llm.pipecat.speech import SharedPiper, SharedWhisper

Samples = npt.NDArray[np.float32]


@pytest.fixture(scope="session")
def whisper() -> SharedWhisper:
    return asyncio.run(SharedWhisper.load(threads=1))


@pytest.fixture(scope="session")
def piper() -> SharedPiper:
    return asyncio.run(SharedPiper.load(threads=1))


@pytest.fixture(scope="session")
def telephone(piper: SharedPiper) -> Callable[[str], Samples]:
    """Return a function that speaks a text at 16 kHz after it has been through 8 kHz mu-law."""

    def speak(text: str) -> Samples:
        # Without Piper's own randomness, each run hears the same.
        sentences = piper._voice.synthesize(text, SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0))
        speech = np.concatenate([sentence.audio_float_array for sentence in sentences])
        on_the_line = through_mulaw(soxr.resample(0.7 * speech, 22050, 8000))
        return np.asarray(soxr.resample(on_the_line, 8000, 16000), np.float32)

    return speak


def through_mulaw(samples: Samples) -> Samples:
    """Quantise as G.711 does: 8 bits on a logarithmic scale."""
    compressed = np.sign(samples) * np.log1p(255 * np.abs(samples)) / np.log1p(255)
    levels = np.round(compressed * 127) / 127
    return np.asarray(np.sign(levels) * np.expm1(np.abs(levels) * np.log1p(255)) / 255, np.float32)


def silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * 16000), np.float32)


def words(text: str) -> list[str]:
    return "".join(c for c in text.lower() if c.isalnum() or c.isspace()).split()
