"""SharedPiper: one loaded Piper voice for all calls of the process."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import soxr
from piper import PiperVoice
from piper.config import PiperConfig

from ...errors import ConfigError, ModelFileError
from .files import piper_voice
from .workers import Priority, PriorityWorkers

__all__ = ["SharedPiper"]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Piper begins each sentence with up to 60 ms of near silence, which a waiting caller need not hear.
AUDIBLE = 0.004
LEAD_S = 0.02


class SharedPiper:
    """Speaks for all calls of the process; made by ``load``, which loads each voice once. Thread-safe."""

    _loaded: dict[tuple[object, ...], SharedPiper] = {}  # noqa: RUF012  # the process's cache
    _loading = threading.Lock()

    def __init__(self, voice: PiperVoice, *, name: str, workers: int = 1) -> None:
        self.name = name
        """Name of the voice, such as ``en_US-joe-medium``."""
        self._voice = voice
        self._workers = PriorityWorkers("piper", workers)

    @classmethod
    async def load(
        cls, path: Path | str | None = None, *, device: str = "cpu", threads: int = 2, workers: int = 1
    ) -> SharedPiper:
        """Return the voice, loaded off the event loop by the first who asks.

        Args:
            path: The voice's ``.onnx`` file; by default, the packaged en_US-joe-medium.
            device: ``cpu`` or ``cuda`` (which needs the package onnxruntime-gpu).
            threads: CPU threads of one synthesis.
            workers: Syntheses that run at once.

        Raises:
            ModelFileError: A file is not there or cannot be read.
            ConfigError: The device is not one that ONNX Runtime has here.
        """
        if _PROVIDERS.get(device) not in onnxruntime.get_available_providers():
            raise ConfigError(f"Piper cannot run on {device!r} here: ONNX Runtime has no such provider", param="device")
        return await asyncio.to_thread(cls._load_once, piper_voice(path), device, threads, workers)

    @classmethod
    def _load_once(cls, file: Path, device: str, threads: int, workers: int) -> SharedPiper:
        key = (file.resolve(), device, threads, workers)
        with cls._loading:
            if key not in cls._loaded:
                shared = cls(_load_voice(file, device, threads), name=file.stem, workers=workers)
                # The first synthesis allocates; the first caller need not wait for that.
                list(shared.synthesize("Hello.", 8000))
                cls._loaded[key] = shared
            return cls._loaded[key]

    def submit(self, sentences: Iterator[bytes], priority: Priority = Priority.AWAITED) -> Future[bytes | None]:
        """Queue the synthesis of the next of ``sentences``, which ``synthesize`` gave; None when there is none."""
        return self._workers.submit(lambda: next(sentences, None), priority)

    def synthesize(self, text: str, sample_rate_hz: int) -> Iterator[bytes]:
        """Yield 16-bit mono audio of ``text``, a sentence at a time; nothing is computed before the first is taken."""
        for sentence in self._voice.synthesize(text):
            samples = _without_lead(sentence.audio_float_array, sentence.sample_rate)
            if sentence.sample_rate != sample_rate_hz:
                samples = soxr.resample(samples, sentence.sample_rate, sample_rate_hz)
            yield (np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16).tobytes()


def _load_voice(file: Path, device: str, threads: int) -> PiperVoice:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin between two syntheses take the cores from the language model, and gain 5 % here.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        config = PiperConfig.from_dict(json.loads(Path(f"{file}.json").read_text(encoding="utf-8")))
        session = onnxruntime.InferenceSession(str(file), options, providers=[_PROVIDERS[device]])
    except Exception as e:
        raise ModelFileError(f"the Piper voice {file} cannot be loaded: {e}") from e
    return PiperVoice(config=config, session=session)


def _without_lead(samples: npt.NDArray[np.float32], sample_rate_hz: int) -> npt.NDArray[np.float32]:
    audible = np.flatnonzero(np.abs(samples) >= AUDIBLE)
    if not len(audible):
        return samples
    return samples[max(0, int(audible[0]) - int(LEAD_S * sample_rate_hz)) :]
