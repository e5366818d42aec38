"""Recording, picture, tables and JSON of a call."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from voice_llm.errors import InvalidRequestError
from voice_llm.simulator.phone import (
    PhoneCall,
    PhoneTurn,
    Recording,
    TurnStages,
    draw_timeline,
    latency_table,
    transcript_table,
)
from voice_llm.simulator.phone.audio import silence

from .fake_bot import tone

pytestmark = pytest.mark.unit

STAGES = TurnStages(
    transcript_ms=300, first_token_ms=350, first_chunk_ms=400, first_audio_ms=600, audible_ms=650, turn_end_ms=310
)
TURN = PhoneTurn(
    said="What is [bold]covered[/]?",
    speech_start_s=1.0,
    speech_end_s=2.0,
    speech_start_unix_s=101.0,
    speech_end_unix_s=102.0,
    reply_start_s=2.65,
    reply_end_s=4.2,
    voice_to_voice_ms=650,
    heard="What is covert?",
    reply="Fire and storm",
    reply_interrupted=True,
    stages=STAGES,
)
BARGE_IN = dataclasses.replace(
    TURN, said="Stop", barge_in=True, stop_ms=240, speech_start_s=4.0, speech_end_s=4.5, heard=None, stages=None,
    broken_off=1, answer_ms=2150,
)  # fmt: skip
CALL = PhoneCall(
    call_id="CA1",
    started_unix_s=100.0,
    greeting_ms=120,
    greeting="Good day.",
    turns=(TURN, BARGE_IN),
    recording=Recording(
        np.concatenate([silence(8000), tone(1), silence(24000)]), np.concatenate([tone(0.5), silence(36000)])
    ),
)


def printed(table: RenderableType, width: int = 80) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_wav_has_the_caller_left_and_the_bot_right(tmp_path: Path) -> None:
    CALL.recording.write_wav(tmp_path / "call.wav")
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.array_equal(sound[:, 0], CALL.recording.caller)
    assert np.array_equal(sound[:, 1], CALL.recording.bot)


def test_sides_of_different_length_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="1 samples left and 2 right"):
        Recording(silence(1), silence(2))


def test_json_holds_all_but_the_sound() -> None:
    data = json.loads(json.dumps(CALL.to_json()))
    assert data["summary"]["voice_to_voice_ms"]["p50"] == 650
    assert data["summary"]["stop_ms"]["count"] == 1
    assert data["turns"][0]["stages"]["first_token_ms"] == 350
    assert data["turns"][0]["said"] == TURN.said
    assert data["duration_s"] == CALL.recording.duration_s
    assert "recording" not in data


def test_transcript_shows_both_sides_and_what_was_misheard() -> None:
    text = printed(transcript_table(CALL), 100)
    for words in ("Good day.", TURN.said, "What is covert?", "Fire and storm [interrupted]", "barges in"):
        assert words in text


def test_latencies_fit_a_terminal_of_80_columns() -> None:
    text = printed(latency_table(CALL))
    header = next(line for line in text.splitlines() if "turn" in line)
    assert header.split() == "turn transcript first token first chunk first audio audible stopped".split()  # noqa: SIM905
    rows = [line.split() for line in text.splitlines() if line.strip()[:2] in {"1 ", "2 "}]
    assert rows == [["1", "300", "350", "400", "600", "650"], ["2", "–", "–", "–", "–", "650", "240"]]
    assert "Turn 2: the bot began a reply and dropped it; the one it kept after 2150 ms." in text.replace("\n", " ")


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        dataclasses.replace(CALL, turns=()),
        dataclasses.replace(CALL, turns=(), recording=Recording(silence(0), silence(0))),
        dataclasses.replace(CALL, turns=(dataclasses.replace(TURN, voice_to_voice_ms=None, reply_start_s=None),)),
    ],
    ids=["two turns", "no turns", "nothing", "no reply"],
)
def test_picture_is_drawn_whatever_happened(tmp_path: Path, call: PhoneCall) -> None:
    draw_timeline(call, tmp_path / "call.png")
    assert (tmp_path / "call.png").read_bytes().startswith(b"\x89PNG")


def test_importing_loads_no_optional_package() -> None:
    code = (
        "import sys, voice_llm.simulator.phone\n"
        "print({'piper', 'soxr', 'websockets', 'matplotlib', 'onnxruntime', 'aiohttp'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
