from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from voice_llm.errors import ConfigError
from voice_llm.simulator.phone import Line, PiperCallerVoice, speak_lines

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def voice() -> PiperCallerVoice:
    return PiperCallerVoice()


def test_packaged_voice_speaks_at_telephone_rate_and_loudness(voice: PiperCallerVoice) -> None:
    (spoken,) = speak_lines([Line(text="What is the deductible for water damage?")], voice)
    assert spoken.samples.dtype == np.int16
    assert 1.0 < len(spoken.samples) / 8000 < 4.0
    assert 0.3 < np.abs(spoken.samples / 32768).max() < 0.8
    spectrum = np.abs(np.fft.rfft(spoken.samples.astype(float))) ** 2
    # Resampled and not only relabelled: a voice has most of its energy below 1 kHz.
    assert spectrum[: len(spectrum) // 4].sum() > 0.5 * spectrum.sum()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"voice\.onnx"):
        PiperCallerVoice(tmp_path / "voice.onnx")


@pytest.mark.parametrize("package", ["piper", "soxr"])
def test_missing_package_is_named_with_the_pip_command(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf'{package}: pip install "pipecat-voice-llm\[simulator\]"'):
        PiperCallerVoice()


def test_missing_voice_is_named_with_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "pipecat-voice-llm\[simulator\]"'):
        PiperCallerVoice()
