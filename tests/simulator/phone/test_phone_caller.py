"""A caller and a bot over a real socket, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from voice_llm.simulator.phone import (
    BotHungUpError,
    BotProtocolError,
    BotUnreachableError,
    CallTooLongError,
    Line,
    Manners,
    NoReplyError,
    PhoneCall,
    PhoneCaller,
    PhoneCallError,
    SpokenLine,
)
from voice_llm.simulator.phone.speech_edges import first_audible, last_audible
from voice_llm.testing.virtual_time import run_in_virtual_time

from .fake_bot import FakeBot, tone

pytestmark = pytest.mark.unit

FRAME_MS = 20
NO_GREETING = Manners(wait_for_greeting=False)
UNIX_S = 1_700_000_000.0


def line(text: str, seconds: float = 0.5, *, barge_in_after_s: float | None = None) -> SpokenLine:
    return SpokenLine.cut(Line(text=text, barge_in_after_s=barge_in_after_s), tone(seconds, hertz=300))


async def place(bot: FakeBot, *lines: SpokenLine, manners: Manners = NO_GREETING) -> PhoneCall:
    loop = asyncio.get_running_loop()
    async with bot.serving():
        caller = PhoneCaller(
            bot.url, lines, manners=manners, clock=loop.time, wall_clock=lambda: UNIX_S + loop.time(), call_sid="CA1"
        )
        begun_s = loop.time()
        call = await caller.call()
        assert call.started_unix_s == pytest.approx(UNIX_S + begun_s, abs=0.1)
        return call


def run(call: Coroutine[Any, Any, PhoneCall]) -> PhoneCall:
    return run_in_virtual_time(call)


def test_voice_to_voice_is_what_the_bot_took() -> None:
    bot = FakeBot(reply_after_s=0.5)
    call = run(place(bot, line("one"), line("two")))
    assert [turn.said for turn in call.turns] == ["one", "two"]
    for turn in call.turns:
        # The bot hears a frame once it has been spoken, and is heard from the next frame on.
        assert turn.voice_to_voice_ms == pytest.approx(500, abs=2 * FRAME_MS)
        assert turn.voice_to_voice_ms is not None
        assert turn.voice_to_voice_ms >= 500
        assert turn.reply_end_s is not None
        assert turn.reply_start_s is not None
        assert turn.reply_end_s - turn.reply_start_s == pytest.approx(0.6, abs=0.005)
        assert not turn.barge_in
        assert not turn.talked_over
        assert turn.speech_end_unix_s - turn.speech_end_s == pytest.approx(call.started_unix_s)
    assert call.hung_up_by == "caller"
    assert bot.events("stop")[0]["stop"]["callSid"] == "CA1"


def test_next_line_waits_until_the_bot_has_been_silent() -> None:
    call = run(place(FakeBot(), line("one"), line("two")))
    first, second = call.turns
    assert first.reply_end_s is not None
    assert second.speech_start_s - first.reply_end_s == pytest.approx(0.8, abs=2 * FRAME_MS / 1000)


def test_greeting_is_waited_for_and_measured() -> None:
    call = run(place(FakeBot(greeting_s=1.0), line("one"), manners=Manners()))
    assert call.greeting_ms == pytest.approx(0, abs=2 * FRAME_MS)
    assert call.turns[0].speech_start_s == pytest.approx(1.8, abs=3 * FRAME_MS / 1000)


def test_barge_in_is_said_over_the_reply_and_its_stop_is_measured() -> None:
    bot = FakeBot(reply_s=5.0, stops_after_s=0.2)
    call = run(place(bot, line("one"), line("stop", 1.0, barge_in_after_s=1.5)))
    first, second = call.turns
    assert first.reply_start_s is not None
    assert second.speech_start_s - first.reply_start_s == pytest.approx(1.5, abs=2 * FRAME_MS / 1000)
    assert second.barge_in
    assert second.stop_ms == pytest.approx(200, abs=2 * FRAME_MS)
    assert first.reply_end_s == pytest.approx(second.speech_start_s + (second.stop_ms or 0) / 1000)
    assert second.voice_to_voice_ms == pytest.approx(500, abs=2 * FRAME_MS)
    assert not second.talked_over


def test_stop_is_measured_also_where_the_next_reply_comes_at_once() -> None:
    bot = FakeBot(reply_s=5.0, stops_after_s=0.1, reply_after_s=0.06)
    call = run(place(bot, line("one"), line("stop", 0.4, barge_in_after_s=0.5)))
    assert call.turns[1].stop_ms == pytest.approx(100, abs=2 * FRAME_MS)
    assert call.turns[1].voice_to_voice_ms == pytest.approx(60, abs=2 * FRAME_MS)


def test_bot_that_does_not_stop_is_measured_to_the_end_of_its_reply() -> None:
    bot = FakeBot(reply_s=2.0, stops_after_s=None, reply_after_s=3.0)
    call = run(place(bot, line("one"), line("stop", 0.5, barge_in_after_s=0.5)))
    assert call.turns[1].stop_ms == pytest.approx(1500, abs=2 * FRAME_MS)
    assert call.turns[1].voice_to_voice_ms == pytest.approx(3000, abs=2 * FRAME_MS)


def test_recording_has_both_sides_on_one_clock() -> None:
    bot = FakeBot(reply_after_s=0.5)
    call = run(place(bot, line("one"), line("two")))
    recording = call.recording
    assert len(recording.caller) == len(recording.bot)
    turn = call.turns[0]
    assert first_audible(recording.caller) == round(turn.speech_start_s * 8000)
    assert turn.reply_start_s is not None
    start = round(turn.reply_start_s * 8000)
    assert first_audible(recording.bot) == start
    # What the bot heard, frame by frame, is the left channel; what it sent is in the right one to the sample.
    heard = np.concatenate(bot.heard)
    assert np.array_equal(np.flatnonzero(np.abs(heard) > 1000), np.flatnonzero(np.abs(recording.caller) > 1000))
    assert np.max(np.abs(recording.bot[start : start + 4800].astype(int) - tone(0.6))) <= 256
    assert (last_audible(recording.bot) or 0) <= len(recording.bot) - 0.8 * 8000 + 160


def test_line_is_never_dead_and_never_drifts() -> None:
    bot = FakeBot()
    call = run(place(bot, line("one")))
    media = bot.events("media")
    assert [int(message["media"]["timestamp"]) for message in media] == [20 * n for n in range(len(media))]
    assert all(np.any(frame != 0) for frame in bot.heard)
    assert call.recording.duration_s == pytest.approx(len(media) * 0.02, abs=0.021)
    assert call.max_late_ms < 1
    # Each frame is sent when it has been spoken.
    lates_s = np.array(bot.arrivals_s) - bot.arrivals_s[0] - 0.02 * np.arange(len(media))
    assert np.abs(lates_s).max() < 0.001


def test_caller_waits_for_what_the_bot_says_instead_of_a_reply_that_it_dropped() -> None:
    bot = FakeBot(reply_s=2.0, reply_after_s=0.5, drops_first_reply_after_s=0.4)
    call = run(place(bot, line("one"), line("two")))
    first, second = call.turns
    assert first.voice_to_voice_ms == pytest.approx(500, abs=2 * FRAME_MS)
    # 0.4 s of sound are sent, and dropped, within 0.2 s; the rest comes 2 s later.
    assert first.answer_ms == pytest.approx(500 + 200 + 2000, abs=3 * FRAME_MS)
    assert (first.broken_off, second.broken_off) == (1, 0)
    assert first.reply_end_s is not None
    assert second.speech_start_s > first.reply_end_s


def test_marks_are_echoed_when_the_sound_before_them_has_been_played() -> None:
    bot = FakeBot(marks=True)
    call = run(place(bot, line("one")))
    assert [message["mark"]["name"] for message in bot.events("mark")] == ["r1"]
    before = bot.received[: bot.received.index(bot.events("mark")[0])]
    echoed_s = 0.02 * sum(message["event"] == "media" for message in before)
    assert call.turns[0].reply_end_s is not None
    assert echoed_s == pytest.approx(call.turns[0].reply_end_s, abs=0.04)


@pytest.mark.parametrize("garbage", ["not json", b"\x00\x01", '{"event": "clear"}'])
def test_garbage_ends_the_call_with_what_was_heard_until_then(garbage: str | bytes) -> None:
    with pytest.raises(BotProtocolError) as caught:
        run(place(FakeBot(garbage=garbage), line("one")))
    assert caught.value.call is not None


def test_garbage_is_the_reason_also_where_the_bot_hangs_up_on_it() -> None:
    with pytest.raises(BotProtocolError):
        run(place(FakeBot(garbage="x", hang_up_after_replies=0), line("one")))


def test_bot_that_hangs_up_before_the_reply_is_a_failure() -> None:
    with pytest.raises(BotHungUpError, match="after 2 of the caller's lines") as caught:
        run(place(FakeBot(hang_up_after_replies=1), line("one"), line("two"), line("three")))
    call = caught.value.call
    assert call is not None
    assert [turn.voice_to_voice_ms is None for turn in call.turns] == [False, True]


def test_bot_may_hang_up_after_its_last_reply() -> None:
    class Goodbye(FakeBot):
        async def _send_tone(self, socket: Any, stream: str, seconds: float) -> None:
            await super()._send_tone(socket, stream, seconds)
            await socket.close()

    call = run(place(Goodbye(), line("one")))
    assert call.hung_up_by == "bot"
    assert call.turns[0].voice_to_voice_ms is not None


def test_bot_that_never_answers_is_given_up_in_time() -> None:
    with pytest.raises(NoReplyError, match="no reply to turn 1 came within 3 s") as caught:
        run(place(FakeBot(silent=True), line("one"), manners=Manners(wait_for_greeting=False, reply_timeout_s=3)))
    assert caught.value.call is not None
    assert caught.value.call.recording.duration_s == pytest.approx(0.8 + 0.5 + 3, abs=0.1)


def test_bot_that_never_greets_is_given_up_in_time() -> None:
    with pytest.raises(NoReplyError, match="no greeting came within 2 s"):
        run(place(FakeBot(), line("one"), manners=Manners(greeting_timeout_s=2)))


def test_bot_that_never_ends_is_given_up_in_time() -> None:
    manners = Manners(wait_for_greeting=False, max_call_s=5)
    with pytest.raises(CallTooLongError, match="5 s"):
        run(place(FakeBot(reply_s=100.0), line("one"), manners=manners))


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/ws", "http://127.0.0.1:1", "nonsense"])
def test_bot_that_is_not_there_is_a_typed_error(url: str) -> None:
    with pytest.raises(BotUnreachableError):
        asyncio.run(PhoneCaller(url, [line("one")]).call())


def test_cancelled_call_leaves_no_task_behind() -> None:
    async def hang_up() -> set[asyncio.Task[Any]]:
        before = asyncio.all_tasks()
        async with FakeBot().serving() as bot:
            call = asyncio.create_task(
                PhoneCaller(bot.url, [line("one")], clock=asyncio.get_running_loop().time).call()
            )
            await asyncio.sleep(1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        return asyncio.all_tasks() - before

    assert run_in_virtual_time(hang_up()) == set()


def test_failures_are_the_packages_own() -> None:
    assert PhoneCallError("x").code == "phone_call"
