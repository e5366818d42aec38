"""The language of a call: where its sentences end, how fast they are spoken, and what it leaves as it is."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.runtime.helpers import chunks_of, finished_of, read, running, user
from voice_llm.config import EngineConfig
from voice_llm.engine import Speech
from voice_llm.errors import InvalidRequestError
from voice_llm.runtime import Call
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

TURKISH = ["Poliçenizin 3. Maddesi bunu kapsıyor.", "Tamam mı?"]
ENGLISH = ["Poliçenizin 3.", "Maddesi bunu kapsıyor.", "Tamam mı?"]  # an English sentence may end with a number
RATES = {"default": 20, "tr": 10}


def turkish() -> FakeBackend:
    return FakeBackend(reply=lambda _: " ".join(TURKISH))


async def chunks(call: Call, **options: Any) -> list[str]:
    return [chunk.text.strip() for chunk in chunks_of(await read(call.generate(user("Alo"), **options)))]


@pytest.mark.parametrize(
    ("profile", "language", "expected"),
    [
        ("en", None, ENGLISH),
        ("en", "tr", TURKISH),
        ("en", "tr-TR", TURKISH),
        ("tr", None, TURKISH),
        ("tr", "en-GB", ENGLISH),
        ("tr", "fi", ENGLISH),
    ],
)
async def test_sentences_end_as_in_the_calls_language(profile: str, language: str | None, expected: list[str]) -> None:
    async with running(turkish(), language=profile) as engine, engine.open_call(language=language) as call:
        assert call.language == (language or profile)
        assert await chunks(call) == expected


async def test_a_turn_may_be_in_another_language_and_the_next_is_in_the_calls() -> None:
    async with running(turkish()) as engine, engine.open_call() as call:
        assert await chunks(call, language="tr") == TURKISH
        assert await chunks(call) == ENGLISH


@pytest.mark.parametrize(
    ("language", "turn_language", "left_s"), [(None, None, 5.0), ("tr-TR", None, 10.0), (None, "tr", 10.0)]
)
async def test_what_is_left_to_hear_goes_by_the_languages_speaking_rate(
    monkeypatch: pytest.MonkeyPatch, language: str | None, turn_language: str | None, left_s: float
) -> None:
    made: list[Speech] = []

    class Seen(Speech):
        __slots__ = ()

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr("voice_llm.runtime.call.Speech", Seen)
    async with (
        running(turkish(), speaking_rate_chars_per_s=RATES) as engine,
        engine.open_call(language=language) as call,
    ):
        await read(call.generate(user("Alo"), language=turn_language))
    [speech] = made
    speech.played(0, 0, now_s=0.0)
    all_before_s = speech.slack_s(0.0)
    speech.sent("x" * 100, now_s=0.0)
    assert speech.slack_s(0.0) - all_before_s == pytest.approx(left_s)


async def test_a_slower_language_rests_longer() -> None:
    sentence = "Bu uzunca bir cümle. "
    config = EngineConfig(max_ahead_s=1.0)
    rates = {"default": 1000, "tr": 100}
    backend = FakeBackend(reply=lambda _: sentence * 16)
    async with (
        running(backend, speaking_rate_chars_per_s=rates, engine=config) as engine,
        engine.open_call(language="tr") as call,
    ):
        started_s = time.monotonic()
        await read(call.generate(user("Alo"), max_tokens=400))
        assert time.monotonic() - started_s >= 14 * len(sentence) / 100 - 1.0 - 0.4


async def test_calls_share_what_is_cached_whatever_they_speak() -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return "Yes."

    async with running(FakeBackend(reply=reply), system_prompt="You are Ada.") as engine:
        for language in (None, "tr"):
            async with engine.open_call(language=language) as call:
                opening = [{"role": "system", "content": "You are Ada."}, *user("Which excess do I have?")]
                usage = finished_of(await read(call.generate(opening, rag_context="The excess is 150 euros."))).usage
    assert prompts[0] == prompts[1]
    assert usage.prompt_tokens - usage.cached_tokens <= 2


@pytest.mark.parametrize("language", ["English", "", "t", 5])
async def test_what_is_no_language_is_refused_at_once(language: Any) -> None:
    async with running() as engine, engine.open_call() as call:
        for ask in (lambda: engine.open_call(language=language), lambda: call.generate(user("Hi"), language=language)):
            with pytest.raises(InvalidRequestError) as caught:
                ask()
            assert caught.value.param == "language"
