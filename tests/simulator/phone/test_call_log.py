from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from voice_llm.simulator.phone import CallLogError, PhoneCall, PhoneTurn, Recording, join_call_log, read_call_log
from voice_llm.simulator.phone.audio import silence

pytestmark = pytest.mark.unit

START_S = 1000.0


def write(path: Path, *events: tuple[float, str, dict[str, Any]], call_id: str = "CA1") -> Path:
    with path.open("a", encoding="utf-8") as log:
        for at_s, event, fields in events:
            log.write(json.dumps({"time_s": START_S + at_s, "call_id": call_id, "event": event, **fields}) + "\n")
    return path


def turn(start_s: float, end_s: float, *, latency_s: float | None = 1.5) -> PhoneTurn:
    return PhoneTurn(
        said="said",
        speech_start_s=start_s,
        speech_end_s=end_s,
        speech_start_unix_s=START_S + start_s,
        speech_end_unix_s=START_S + end_s,
        reply_start_s=None if latency_s is None else end_s + latency_s,
        voice_to_voice_ms=None if latency_s is None else latency_s * 1000,
    )


def call(*turns: PhoneTurn) -> PhoneCall:
    return PhoneCall(
        call_id="CA1", started_unix_s=START_S, turns=turns, recording=Recording(silence(160), silence(160))
    )


def reply(at_s: float, text: str) -> list[tuple[float, str, dict[str, Any]]]:
    return [
        (at_s, "transcript", {"text": text, "interim": False}),
        (at_s + 0.1, "first_token", {}),
        (at_s + 0.2, "first_chunk", {"text": "x"}),
        (at_s + 0.3, "first_audio", {}),
    ]


def test_stages_are_counted_from_the_end_of_the_callers_speech(tmp_path: Path) -> None:
    log = write(
        tmp_path / "log",
        (0.5, "bot_said", {"text": "Hello.", "interrupted": False}),
        (3.2, "user_speech_stopped", {}),
        *reply(4.0, " what was heard "),
        (4.01, "user_turn_ended", {}),
        (4.02, "user_said", {"text": "What was heard"}),
        (6.0, "bot_said", {"text": "The reply.", "interrupted": False}),
    )
    joined = join_call_log(call(turn(1, 3)), read_call_log(log))
    assert joined.greeting == "Hello."
    (first,) = joined.turns
    assert (first.heard, first.reply, first.reply_interrupted) == ("What was heard", "The reply.", False)
    stages = first.stages
    assert stages is not None
    assert [stages.vad_stop_ms, stages.transcript_ms, stages.turn_end_ms] == pytest.approx([200, 1000, 1010])
    assert [stages.first_token_ms, stages.first_chunk_ms, stages.first_audio_ms] == pytest.approx([1100, 1200, 1300])
    assert stages.audible_ms == 1500


def test_reply_that_was_thrown_away_is_not_taken_for_the_one_that_was_heard(tmp_path: Path) -> None:
    log = write(tmp_path / "log", *reply(2.0, "early"), *reply(4.0, "final"), *reply(4.6, "next"))
    (first,) = join_call_log(call(turn(1, 3)), read_call_log(log)).turns
    assert first.stages is not None
    assert first.stages.first_audio_ms == pytest.approx(1300)
    assert first.stages.transcript_ms == pytest.approx(1000)


def test_reply_begun_before_the_caller_ended_has_negative_stages(tmp_path: Path) -> None:
    log = write(tmp_path / "log", *reply(2.9, "early")[:2])
    (first,) = join_call_log(call(turn(1, 3)), read_call_log(log)).turns
    assert first.stages is not None
    assert first.stages.transcript_ms == pytest.approx(-100)
    assert (first.stages.first_chunk_ms, first.stages.first_audio_ms) == (None, None)


def test_interrupted_reply_belongs_to_the_turn_that_it_answered(tmp_path: Path) -> None:
    log = write(
        tmp_path / "log",
        (6.3, "bot_said", {"text": "The half", "interrupted": True}),
        (9.0, "user_said", {"text": "stop"}),
        (12.0, "bot_said", {"text": "Yes.", "interrupted": False}),
    )
    first, second = join_call_log(call(turn(1, 3), turn(6, 8)), read_call_log(log)).turns
    assert (first.reply, first.reply_interrupted, first.heard) == ("The half", True, None)
    assert (second.reply, second.reply_interrupted, second.heard) == ("Yes.", False, "stop")


def test_first_sentence_that_was_interrupted_is_shown_as_far_as_it_is_known(tmp_path: Path) -> None:
    log = write(tmp_path / "log", *reply(4.0, "heard"), (5.0, "bot_said", {"text": "", "interrupted": True}))
    (first,) = join_call_log(call(turn(1, 3)), read_call_log(log)).turns
    assert (first.reply, first.reply_interrupted) == ("x ...", True)


def test_reply_of_which_the_bot_committed_nothing_is_shown_as_interrupted(tmp_path: Path) -> None:
    log = write(tmp_path / "log", *reply(4.0, "heard"))
    barge_in = dataclasses.replace(turn(6, 8), barge_in=True)
    first, second = join_call_log(call(turn(1, 3), barge_in), read_call_log(log)).turns
    assert (first.reply, first.reply_interrupted) == ("x ...", True)
    assert (second.reply, second.reply_interrupted) == (None, False)


def test_interim_transcripts_are_neither_stages_nor_words(tmp_path: Path) -> None:
    log = write(tmp_path / "log", (2.0, "transcript", {"text": "wha", "interim": True}))
    (first,) = join_call_log(call(turn(1, 3)), read_call_log(log)).turns
    assert first.heard is None
    assert first.stages is not None
    assert first.stages.transcript_ms is None


def test_other_calls_are_left_out(tmp_path: Path) -> None:
    log = write(tmp_path / "log", *reply(4.0, "secret"), call_id="CA2")
    (first,) = join_call_log(call(turn(1, 3)), read_call_log(log)).turns
    assert (first.heard, first.stages and first.stages.first_token_ms) == (None, None)


def test_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    log = write(tmp_path / "log", (1.0, "call_started", {}))
    log.write_text(log.read_text(encoding="utf-8") + '{"time_s": 1', encoding="utf-8")
    assert [event.name for event in read_call_log(log)] == ["call_started"]


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"time_s": "x", "call_id": "c", "event": "e"}', '{"time_s": 1}'])
def test_line_that_is_no_event_is_named(tmp_path: Path, line: str) -> None:
    log = write(tmp_path / "log", (1.0, "call_started", {}))
    log.write_text(log.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(CallLogError, match="line 2"):
        read_call_log(log)


def test_log_that_is_not_there_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(CallLogError, match="cannot be read"):
        read_call_log(tmp_path / "none")
