"""SharedWhisper: one loaded Whisper model for all calls of the process."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import zlib
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_ctranslate2_storage, get_suppressed_tokens

from ...errors import ConfigError, ModelFileError
from .files import whisper_folder
from .workers import Priority, PriorityWorkers

__all__ = ["SAMPLE_RATE_HZ", "SharedWhisper", "Transcription"]

SAMPLE_RATE_HZ = 16_000
FRAMES_PER_S = 100
FULL_WINDOW_S = 30.0

# The encoder's cost grows with its window, which Whisper's authors always fill up to 30 s. It may be shorter, but below
# some 10 s tiny.en loses words and loops. At 12 s it hears telephone speech nearly as well as at 30 s, in a quarter of
# the time.
MIN_WINDOW_S = 12.0
WINDOW_MARGIN_S = 2.0

# Where the decoder went astray, as in OpenAI's reference code.
MIN_AVG_LOGPROB = -1.0
MAX_COMPRESSION_RATIO = 2.4
# Fast talkers make some 6 tokens a second; the rest is room for digits and names.
TOKENS_PER_S = 10
EXTRA_TOKENS = 16

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Transcription:
    """What Whisper heard.

    Attributes:
        text: The words, without white space around them.
        avg_logprob: Mean log probability of the tokens; about -0.1 for clear speech.
        no_speech_prob: Whether there was no speech at all, by Whisper's own estimate.
        is_doubtful: The words repeat themselves, were cut off, or are unlikely.
        duration_s: Seconds that it took.
    """

    text: str
    avg_logprob: float
    no_speech_prob: float
    is_doubtful: bool
    duration_s: float


class SharedWhisper:
    """Transcribes for all calls of the process; made by ``load``, which loads each model once.

    Every method is thread-safe. A pass cannot be stopped once it runs, so the urgent ones go first.
    """

    _loaded: dict[tuple[object, ...], SharedWhisper] = {}  # noqa: RUF012  # the process's cache
    _loading = threading.Lock()

    def __init__(self, model: WhisperModel, *, name: str, workers: int = 1) -> None:
        self.name = name
        """Name of the model's folder, for metrics."""
        self._model = model
        self._workers = PriorityWorkers("whisper", workers)
        self._suppressed = list(get_suppressed_tokens(self._tokenizer("en"), [-1]) or ())
        self._expected_pass_s = 0.0

    @classmethod
    async def load(
        cls,
        path: Path | str | None = None,
        *,
        device: str = "cpu",
        compute_type: str = "int8",
        threads: int = 1,
        workers: int = 2,
    ) -> SharedWhisper:
        """Return the model, loaded off the event loop by the first who asks.

        Args:
            path: Folder of a CTranslate2 model; by default, the packaged tiny.en.
            device: ``cpu`` or ``cuda``.
            compute_type: A compute type of CTranslate2; ``float16`` suits GPUs.
            threads: CPU threads of a pass; a second one gains nothing on the short windows that are used here.
            workers: Passes that run at once: with two, a final pass need not wait for an interim one.

        Raises:
            ModelFileError: A file is not there or cannot be read.
            ConfigError: The device or compute type is not one that CTranslate2 has here.
        """
        return await asyncio.to_thread(cls._load_once, whisper_folder(path), device, compute_type, threads, workers)

    @classmethod
    def _load_once(cls, folder: Path, device: str, compute_type: str, threads: int, workers: int) -> SharedWhisper:
        key = (folder.resolve(), device, compute_type, threads, workers)
        with cls._loading:
            if key not in cls._loaded:
                model = _load_model(folder, device, compute_type, threads, workers)
                shared = cls(model, name=folder.name, workers=workers)
                # The first pass allocates; the first caller need not wait for that.
                shared.transcribe(np.zeros(SAMPLE_RATE_HZ, np.float32))
                cls._loaded[key] = shared
            return cls._loaded[key]

    @property
    def languages(self) -> frozenset[str]:
        """Codes of the languages that the model knows."""
        return frozenset(self._model.supported_languages)

    @property
    def is_idle(self) -> bool:
        """Whether no pass runs or waits."""
        return self._workers.is_idle

    @property
    def expected_pass_s(self) -> float:
        """Seconds that a pass takes, going by the recent ones."""
        return self._expected_pass_s

    def submit(
        self,
        samples: Samples,
        *,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
        language: str = "en",
        priority: Priority = Priority.AWAITED,
        retry: bool = True,
    ) -> Future[Transcription]:
        """Queue a pass; arguments as for ``transcribe``."""
        return self._workers.submit(
            lambda: self.transcribe(samples, sample_rate_hz=sample_rate_hz, language=language, retry=retry), priority
        )

    def transcribe(
        self, samples: Samples, *, sample_rate_hz: int = SAMPLE_RATE_HZ, language: str = "en", retry: bool = True
    ) -> Transcription:
        """Return what is said in ``samples``; takes 0.1 s and more.

        Args:
            samples: Mono speech between -1 and 1, shape ``(n,)``.
            sample_rate_hz: Samples a second; other rates than 16 kHz are converted.
            language: Code of the language that is spoken; English-only models ignore it.
            retry: Hear doubtful passages once more, as thoroughly as Whisper can.
        """
        started_s = time.perf_counter()
        if sample_rate_hz != SAMPLE_RATE_HZ:
            samples = soxr.resample(samples, sample_rate_hz, SAMPLE_RATE_HZ)
        speech_s = len(samples) / SAMPLE_RATE_HZ
        window_s = min(FULL_WINDOW_S, max(MIN_WINDOW_S, math.ceil(speech_s + WINDOW_MARGIN_S)))
        if speech_s > FULL_WINDOW_S - 1.0:
            text, scores = self._transcribe_long(samples, language)
        else:
            text, scores = self._transcribe_window(samples, window_s, language)
            if retry and scores[2] and window_s < FULL_WINDOW_S:
                text, scores = self._transcribe_window(samples, FULL_WINDOW_S, language)
        duration_s = time.perf_counter() - started_s
        self._expected_pass_s += 0.3 * (duration_s - self._expected_pass_s)
        return Transcription(text, *scores, duration_s=duration_s)

    def _transcribe_window(
        self, samples: Samples, window_s: float, language: str
    ) -> tuple[str, tuple[float, float, bool]]:
        tokenizer = self._tokenizer(language)
        prompt = [*tokenizer.sot_sequence, tokenizer.no_timestamps]
        max_tokens = EXTRA_TOKENS + int(TOKENS_PER_S * len(samples) / SAMPLE_RATE_HZ)
        result: Any = self._model.model.generate(
            self._model.model.encode(get_ctranslate2_storage(self._features(samples, window_s))),
            [prompt],
            beam_size=1,
            max_length=min(self._model.max_length, len(prompt) + max_tokens),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
        )[0]
        tokens: list[int] = result.sequences_ids[0]
        text = tokenizer.decode(tokens).strip()
        avg_logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
        doubtful = (
            len(tokens) >= max_tokens
            or avg_logprob < MIN_AVG_LOGPROB
            or _compression_ratio(text) > MAX_COMPRESSION_RATIO
        )
        return text, (avg_logprob, result.no_speech_prob, doubtful)

    def _transcribe_long(self, samples: Samples, language: str) -> tuple[str, tuple[float, float, bool]]:
        segments, _ = self._model.transcribe(
            samples, language=language, beam_size=1, condition_on_previous_text=False, temperature=0.0
        )
        heard = list(segments)
        if not heard:
            return "", (0.0, 1.0, False)
        text = " ".join(segment.text.strip() for segment in heard)
        avg_logprob = sum(segment.avg_logprob for segment in heard) / len(heard)
        return text, (avg_logprob, min(segment.no_speech_prob for segment in heard), False)

    def _features(self, samples: Samples, window_s: float) -> Samples:
        """Return the log-mel spectrogram, padded to the window: shape ``(1, mels, frames)``."""
        frames = int(window_s * FRAMES_PER_S)
        features = self._model.feature_extractor(samples)[:, :frames]
        return np.pad(features, ((0, 0), (0, frames - features.shape[1])))[None].astype(np.float32)

    def _tokenizer(self, language: str) -> Tokenizer:
        multilingual = self._model.model.is_multilingual
        return Tokenizer(self._model.hf_tokenizer, multilingual, task="transcribe", language=language)


def _load_model(folder: Path, device: str, compute_type: str, threads: int, workers: int) -> WhisperModel:
    try:
        return WhisperModel(
            str(folder), device=device, compute_type=compute_type, cpu_threads=threads, num_workers=workers
        )
    except ValueError as e:
        raise ConfigError(f"Whisper cannot run as {compute_type} on {device}: {e}", param="device") from e
    except Exception as e:
        raise ModelFileError(f"the Whisper model in {folder} cannot be loaded: {e}") from e


def _compression_ratio(text: str) -> float:
    data = text.encode()
    return len(data) / len(zlib.compress(data))
