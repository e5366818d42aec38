"""Barge-in: what was not spoken leaves the history, and the cache is rewound to what was."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pipecat.frames.frames import LLMFullResponseEndFrame, LLMFullResponseStartFrame

from tests.runtime.helpers import GatedBackend, idle, prompts_made, running
from voice_llm.pipecat import VoiceLLMService
from voice_llm.runtime import Engine
from voice_llm.testing import FakeBackend

from .bot import Bot, calling

pytestmark = pytest.mark.unit


def reply(prompt: str) -> str:
    users = re.findall(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", prompt, flags=re.DOTALL)
    return f"About {users[-1]} I know this. It is the second sentence. And here is a third."


def said(bot: Bot, role: str) -> list[str]:
    return [m["content"] for m in bot.messages if m["role"] == role]


async def settled(bot: Bot, engine: Engine) -> None:
    await bot.silence()
    await prompts_made(engine)
    await idle(engine)


async def cached_text(engine: Engine, backend: FakeBackend) -> str:
    """Return what the only call's sequence holds, control tokens left out."""

    def read() -> str:
        [call] = engine._batcher.calls
        assert call.sequence is not None
        return b"".join(backend.token_bytes(t) for t in call.sequence.tokens).decode()

    return await engine._run(read)


async def test_in_the_first_sentence_nothing_of_the_reply_stays() -> None:
    async with running(backend := FakeBackend(reply=reply)) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        async with calling(bot):
            await bot.say("claims")
            await bot.until_said(3)
            bot.speaker.play(0.5)
            await bot.silence()
            await bot.say("wait")
            await bot.until_said(6)
            assert said(bot, "user") == ["claims", "wait"]
            assert said(bot, "assistant") == []
            bot.speaker.play(10)
            await settled(bot, engine)
            assert said(bot, "assistant") == ["About wait I know this. It is the second sentence. And here is a third."]
            assert "About claims" not in await cached_text(engine, backend)


async def test_between_sentences_what_was_spoken_stays_and_is_not_computed_again() -> None:
    async with running(backend := FakeBackend(reply=reply)) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        async with calling(bot):
            await bot.say("claims")
            await bot.until_said(3)
            bot.speaker.play(1.5)
            await bot.silence()
            before = backend.counters.decoded_tokens
            await bot.start_speaking()
            await settled(bot, engine)
            assert said(bot, "assistant") == ["About claims I know this."]
            held = await cached_text(engine, backend)
            assert "About claims I know this." in held
            assert "second sentence" not in held
            # The rewound cache lacks only the end of the spoken message and the next header.
            assert backend.counters.decoded_tokens - before <= len("<>\n<>user\n")


async def test_twice_in_a_row_only_what_was_spoken_each_time_stays() -> None:
    async with running(backend := FakeBackend(reply=reply)) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        async with calling(bot):
            await bot.start_speaking()
            for count, topic in enumerate(["claims", "fees"], start=1):
                await bot.stop_speaking()
                await bot.hear(topic)
                await bot.until_said(3 * count)
                bot.speaker.play(1.5)
                await bot.silence()
                await bot.start_speaking()
                await bot.until(lambda count=count: len(said(bot, "assistant")) == count, "what was spoken")  # type: ignore[misc]
            await settled(bot, engine)
            assert said(bot, "user") == ["claims", "fees"]
            assert said(bot, "assistant") == ["About claims I know this.", "About fees I know this."]
            assert "second sentence" not in await cached_text(engine, backend)


async def test_while_the_reply_is_generated_it_stops_and_the_next_turn_is_answered() -> None:
    backend = GatedBackend(reply=reply)
    async with running(backend) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        async with calling(bot):
            await settled(bot, engine)
            backend.hold(after_tokens=8)
            await bot.say("claims")
            await backend.held()
            await bot.start_speaking()
            await bot.silence()
            backend.release()
            await settled(bot, engine)
            assert backend.counters.sampled_tokens < 20
            await bot.stop_speaking()
            await bot.hear("wait")
            await bot.until_said(3)
            assert bot.voice.said[0] == "About wait I know this."
    assert starts_and_ends(bot)


async def test_right_at_the_end_the_whole_reply_stays() -> None:
    async with running(FakeBackend(reply=reply)) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        async with calling(bot):
            await bot.say("claims")
            await bot.until_said(3)
            bot.speaker.play(3.0)
            await bot.until(lambda: said(bot, "assistant"), "the reply to be committed")
            await bot.start_speaking()
            await settled(bot, engine)
            assert said(bot, "assistant") == [
                "About claims I know this. It is the second sentence. And here is a third."
            ]


async def test_a_caller_who_hangs_up_in_the_middle_of_a_reply_leaves_nothing_behind() -> None:
    backend = GatedBackend(reply=reply)
    async with running(backend) as engine:
        bot = Bot(VoiceLLMService(engine=engine, chunks=True))
        async with calling(bot):
            await settled(bot, engine)
            backend.hold(after_tokens=8)
            await bot.say("claims")
            await backend.held()
        backend.release()
        await idle(engine)
        assert engine.health().open_calls == 0


def starts_and_ends(bot: Bot) -> bool:
    kinds: list[Any] = bot.recorder.of(LLMFullResponseStartFrame, LLMFullResponseEndFrame)
    return len([k for k in kinds if isinstance(k, LLMFullResponseStartFrame)]) == len(
        [k for k in kinds if isinstance(k, LLMFullResponseEndFrame)]
    )
