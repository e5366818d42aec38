"""CallLog writes what happened in a call, once each and in time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from pipecat.frames.frames import (
    AggregatedTextFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    MetricsFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSTextFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import LLMTokenUsage, LLMUsageMetricsData
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.tests.utils import SleepFrame, run_test
from pipecat.utils.text.base_text_aggregator import TextType

from voice_llm.pipecat.call_log import CallLog

pytestmark = pytest.mark.unit


class Relay(FrameProcessor):
    """Passes every frame on."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


async def logged(path: Path, *frames: Frame, call_id: str = "c1", processor: Any = None, log: Any = None) -> list[Any]:
    log = log or CallLog(path, call_id=call_id)
    await run_test(processor or Relay(), frames_to_send=list(frames), observers=[log])
    return lines_of(path)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def events(lines: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in lines]


def audio() -> TTSAudioRawFrame:
    return TTSAudioRawFrame(bytes(320), 8000, 1)


def turn() -> list[Frame]:
    """One turn as the processors of a phone bot push it."""
    return [
        VADUserStartedSpeakingFrame(),
        SleepFrame(0.01),
        InterimTranscriptionFrame("Is it", "", "", None),
        SleepFrame(0.01),
        VADUserStoppedSpeakingFrame(stop_secs=0.2, timestamp=1000.0),
        SleepFrame(0.01),
        TranscriptionFrame("Su baskını kapsanıyor mu?", "", "", None),
        SleepFrame(0.01),
        UserStoppedSpeakingFrame(),
        SleepFrame(0.01),
        LLMContextFrame(LLMContext(), speculation=True),
        LLMFullResponseStartFrame(),
        LLMTextFrame("Yes,"),
        AggregatedTextFrame("Yes,", text_type=TextType.SENTENCE),
        audio(),
        SleepFrame(0.01),
        BotStartedSpeakingFrame(),
        LLMTextFrame("it is."),
        AggregatedTextFrame("it is.", text_type=TextType.SENTENCE),
        TTSTextFrame("Yes,", text_type=TextType.SENTENCE),
        audio(),
        LLMFullResponseEndFrame(),
        SleepFrame(0.01),
        BotStoppedSpeakingFrame(),
    ]


async def test_a_turn_is_told_from_speech_to_speech(tmp_path: Path) -> None:
    lines = await logged(tmp_path / "log", *turn())

    assert events(lines) == [
        "call_started",
        "user_speech_started",
        "transcript",
        "user_speech_stopped",
        "transcript",
        "user_turn_ended",
        "llm_started",
        "first_token",
        "first_chunk",
        "first_audio",
        "bot_speech_started",
        "bot_speech_stopped",
        "call_ended",
    ]
    by_event = {line["event"]: line for line in lines}
    assert by_event["user_speech_stopped"]["speech_end_s"] == 999.8
    assert [(line["text"], line["interim"]) for line in lines if line["event"] == "transcript"] == [
        ("Is it", True),
        ("Su baskını kapsanıyor mu?", False),
    ]
    assert by_event["llm_started"]["speculative"] is True
    assert by_event["first_chunk"]["text"] == "Yes,"
    assert {line["call_id"] for line in lines} == {"c1"}


async def test_times_are_those_of_the_frames_in_unix_seconds(tmp_path: Path) -> None:
    before_s = time.time()
    lines = await logged(tmp_path / "log", VADUserStartedSpeakingFrame(), SleepFrame(0.2), UserStoppedSpeakingFrame())

    times_s = {line["event"]: line["time_s"] for line in lines}
    assert before_s - 0.01 <= times_s["call_started"] <= times_s["call_ended"] <= time.time() + 0.01
    assert times_s["user_turn_ended"] - times_s["user_speech_started"] == pytest.approx(0.2, abs=0.08)


async def test_each_reply_has_its_own_firsts(tmp_path: Path) -> None:
    lines = await logged(tmp_path / "log", *turn(), *turn(), TTSSpeakFrame("Bye."), audio(), audio())

    assert events(lines).count("first_token") == 2
    assert events(lines).count("first_chunk") == 2
    assert events(lines).count("first_audio") == 3


async def test_an_interruption_counts_while_the_bot_speaks(tmp_path: Path) -> None:
    lines = await logged(
        tmp_path / "log",
        InterruptionFrame(),
        SleepFrame(0.02),
        BotStartedSpeakingFrame(),
        SleepFrame(0.02),
        InterruptionFrame(),
        SleepFrame(0.02),
        BotStoppedSpeakingFrame(),
        InterruptionFrame(),
    )

    assert events(lines) == [
        "call_started",
        "bot_speech_started",
        "interrupted",
        "bot_speech_stopped",
        "call_ended",
    ]


async def test_what_is_broadcast_is_noted_once(tmp_path: Path) -> None:
    class Broadcaster(Relay):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, TTSSpeakFrame):
                await self.broadcast_frame(BotStartedSpeakingFrame)

    lines = await logged(tmp_path / "log", TTSSpeakFrame("Hello."), SleepFrame(0.02), processor=Broadcaster())

    assert events(lines).count("bot_speech_started") == 1


async def test_what_was_committed_is_noted_with_its_interruption(tmp_path: Path) -> None:
    assistant = LLMContextAggregatorPair(LLMContext()).assistant()
    spoken = TTSTextFrame("Yes, it is.", text_type=TextType.SENTENCE)
    spoken.append_to_context = True
    lines = await logged(
        tmp_path / "log",
        LLMFullResponseStartFrame(),
        spoken,
        SleepFrame(0.05),
        InterruptionFrame(),
        SleepFrame(0.05),
        processor=assistant,
        log=CallLog(tmp_path / "log", call_id="c1", assistant=assistant),
    )

    (said,) = [line for line in lines if line["event"] == "bot_said"]
    assert (said["text"], said["interrupted"]) == ("Yes, it is.", True)
    assert "llm_started" not in events(lines)


async def test_token_usage_is_noted(tmp_path: Path) -> None:
    usage = LLMTokenUsage(prompt_tokens=100, completion_tokens=7, total_tokens=107, cache_read_input_tokens=90)
    lines = await logged(tmp_path / "log", MetricsFrame([LLMUsageMetricsData(processor="llm", value=usage)]))

    (line,) = [line for line in lines if line["event"] == "usage"]
    assert (line["prompt_tokens"], line["cached_tokens"], line["completion_tokens"]) == (100, 90, 7)


async def test_calls_append_to_one_file(tmp_path: Path) -> None:
    await logged(tmp_path / "log", call_id="c1")
    lines = await logged(tmp_path / "log", call_id="c2")

    assert [(line["call_id"], line["event"]) for line in lines] == [
        ("c1", "call_started"),
        ("c1", "call_ended"),
        ("c2", "call_started"),
        ("c2", "call_ended"),
    ]


async def test_cleanup_twice_is_harmless(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "log", call_id="c1")
    await log.cleanup()
    await log.cleanup()

    assert events(lines_of(tmp_path / "log")) == ["call_ended"]
