"""The demo as a command, with a bot whose replies are tones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.model

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / "pipelines" / "demo" / "phone_call.py"
BOT = Path(__file__).with_name("fake_bot_script.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def command(out: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(DEMO), "--bot", str(BOT), "--out", str(out), *arguments]


def test_call_with_a_barge_in_leaves_recording_picture_and_figures(tmp_path: Path) -> None:
    arguments = ("--say", "Hello.", "--say", "Please stop talking now.", "--barge-in-after", "0.5")
    done = subprocess.run(
        command(tmp_path, *arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Please stop talking now." in done.stdout
    assert "what was heard" in done.stdout
    assert {"call.wav", "call.png", "call.json"} <= {path.name for path in tmp_path.iterdir()}
    first, second = json.loads((tmp_path / "call.json").read_text(encoding="utf-8"))["turns"]
    assert second["barge_in"]
    # Real time, with whatever else the machine does. The bot counts from louder sound than the caller's edge does,
    # and in whole frames.
    assert 150 <= second["stop_ms"] < 2000
    assert 400 <= first["voice_to_voice_ms"] < 2500
    assert first["stages"]["first_audio_ms"] <= first["voice_to_voice_ms"]


def test_bot_that_dies_is_one_plain_sentence_and_status_1(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "--", "--die"), env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "the model file is missing" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_call_that_fails_is_shown_as_far_as_it_went(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "--say", "Hello.", "--reply-timeout", "1", "--", "--silent"),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "The call failed: no reply to turn 1 came within 1 s" in done.stdout
    assert (tmp_path / "call.png").exists()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_demo_ends_the_bot(tmp_path: Path, stop: signal.Signals) -> None:
    with subprocess.Popen(
        command(tmp_path, "--no-greeting", "--say", "Hello."),
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        bot_pid = wait_for_bot(tmp_path / "bot.log")
        demo.send_signal(stop)
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130, output
    assert "Traceback" not in output
    with pytest.raises(ProcessLookupError):
        os.kill(bot_pid, 0)


def wait_for_bot(log: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if log.exists() and (lines := log.read_text(encoding="utf-8").splitlines()) and lines[0].startswith("pid "):
            return int(lines[0].removeprefix("pid "))
        time.sleep(0.05)
    pytest.fail("the bot never started")
