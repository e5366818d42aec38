"""Scenarios as calls with sound, on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from voice_llm.simulator import CallerTurn, CallScript, Moment, RunResult, run_calls
from voice_llm.simulator.phone import Samples
from voice_llm.simulator.phone.target import AudioTarget
from voice_llm.testing.virtual_time import run_in_virtual_time

from .fake_bot import FakeBot, tone

pytestmark = pytest.mark.unit


class ToneVoice:
    def speak(self, text: str) -> Samples:
        return tone(0.1 * len(text.split()), hertz=300)


def call(bot: FakeBot, *turns: CallerTurn) -> RunResult:
    async def main() -> RunResult:
        async with bot.serving():
            target = AudioTarget(bot.url, voice=ToneVoice(), waits_for_greeting=False)
            loop = asyncio.get_running_loop()
            return await run_calls(target, [CallScript(turns=turns, think_s=0.5)], concurrent=1, clock=loop.time)

    return run_in_virtual_time(main())


def test_turn_is_timed_by_its_first_sound_and_its_words_are_not_known() -> None:
    (turn,) = call(FakeBot(reply_after_s=0.5, reply_s=0.6), CallerTurn("how are you today")).turns
    assert turn.error is None
    assert turn.is_sound
    assert turn.first_audio_ms == pytest.approx(500, abs=60)
    assert turn.first_speech_ms == turn.first_audio_ms
    assert turn.first_token_ms is None
    assert turn.first_chunk_ms is None
    assert turn.total_ms == pytest.approx(1100, abs=80)


def test_caller_breaks_in_and_hears_how_soon_the_bot_stops() -> None:
    bot = FakeBot(reply_s=5.0, stops_after_s=0.2)
    breaks_in = CallerTurn("wait please wait", starts=Moment("first_speech", delay_s=0.7))
    first, second = call(bot, CallerTurn("tell me all"), breaks_in).turns
    assert first.stopped_ms == second.interrupted_ms
    assert second.interrupted_ms is not None
    assert 100 < second.interrupted_ms < 600
    assert first.total_ms < 3000


def test_bot_that_talks_on_when_it_is_interrupted_is_reported() -> None:
    bot = FakeBot(reply_s=6.0, stops_after_s=3.0)
    breaks_in = CallerTurn("wait", starts=Moment("first_speech", delay_s=0.5))
    result = call(bot, CallerTurn("tell me all"), breaks_in)
    assert [turn.turn for turn in result.turns] == [0, 1]
    interrupted_ms = result.turns[1].interrupted_ms
    assert interrupted_ms is None or interrupted_ms > 1000


def test_silence_of_the_caller_lengthens_the_pause_before_the_next_words() -> None:
    turns = CallerTurn("one"), CallerTurn(silence_s=3.0), CallerTurn("two")
    first, third = call(FakeBot(), *turns).turns
    assert (first.turn, third.turn) == (0, 2)
    assert first.heard_until_s is not None
    assert third.spoke_s is not None
    assert third.spoke_s - first.heard_until_s == pytest.approx(3.5, abs=0.1)


def test_bot_that_says_nothing_is_a_failure_and_no_traceback() -> None:
    result = call(FakeBot(silent=True), CallerTurn("hello"))
    assert len(result.errors) >= 1
    assert "no reply" in " ".join(result.errors)


def test_bot_that_is_not_there_is_a_failure_and_no_traceback() -> None:
    async def main() -> RunResult:
        target = AudioTarget("ws://127.0.0.1:9/ws", voice=ToneVoice())
        return await run_calls(target, [CallScript(turns=(CallerTurn("hello"),))], concurrent=1)

    assert len(asyncio.run(main()).errors) == 1
