"""``voice-llm simulate`` against a real server on the packaged model, as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.server_process import ServerProcess

pytestmark = pytest.mark.model

ROOT = Path(__file__).resolve().parents[2]
PROFILE = "smollm2_135m_demo"
# Callers in a hurry find no time that a reply should keep: every call is taken.
SMALL = ("--profile", PROFILE, "--calls", "2", "--context-per-call", "2048", "--threads", "1", "--admission", "limit")
# As fast as two slow cores can serve, and slow enough that callers still break in.
HURRIED = ("--speed", "20", "--calls", "2")
HOURS = """\
name: hours
system_prompt: You are the phone assistant of a library. Answer in one or two short sentences.
facts: The library is open from 8 to 18 o'clock. It is closed on Sunday.
max_tokens: 32
every_reply:
  - text_matches: \\w
    text_excludes: "<|"
    max_words: 40
turns:
  - user: Hello, when are you open tomorrow, please?
  - user: And on Sunday? I would like to bring back three books that I have had for too long.
  - user: Thank you. Please tell me all about the library now, its books, its rooms and its people.
    hang_up_after: {event: bot_started_speaking, delay_ms: 500}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess([*SMALL], tmp_path_factory.mktemp("serve") / "log") as server:
        server.wait_healthy()
        yield server


def begin(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "voice_llm.cli", "simulate", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, encoding="utf-8", env=environment)


def end(running: subprocess.Popen[str], within_s: float) -> tuple[int, str, str]:
    try:
        out, err = running.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        running.kill()
        running.communicate()
        raise
    return running.returncode, out, err


def report_in(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


@pytest.mark.parametrize("interface", ["grpc", "http"])
def test_calls_over_the_network_meet_what_counts(server: ServerProcess, tmp_path: Path, interface: str) -> None:
    target = {"grpc": f"grpc://{server.grpc}", "http": f"http://{server.http}/v1"}[interface]
    hours = tmp_path / "hours.yaml"
    hours.write_text(HOURS, encoding="utf-8")
    ran = begin("impatient_caller", hours, "--target", target, *HURRIED, "--report", tmp_path)
    code, out, err = end(ran, 120)
    assert code == 0, out + err
    assert "all expectations met" in out
    report = report_in(tmp_path)
    assert sorted(call["scenario"] for call in report["calls"]) == ["hours", "impatient_caller"]
    assert report["tokens"]["completion"] > 0
    broken_off = [turn for call in report["calls"] for turn in call["turns"] if turn.get("stopped_ms") is not None]
    assert broken_off
    if interface == "grpc":
        assert "queue" in report["times"]
        assert report["shares"]["cached"] > 0.5


def test_server_that_is_killed_in_mid_run_is_counted_and_ends_the_command(tmp_path: Path, smollm2_path: Path) -> None:
    with ServerProcess([*SMALL, "--no-supervise"], tmp_path / "log") as server:
        server.wait_healthy()
        target = ("--target", f"grpc://{server.grpc}", "--speed", "5", "--calls", "2", "--duration-s", "40")
        ran = begin("impatient_caller", "long_call", *target, "--report", tmp_path / "out")
        while server.metric("llm_active_contexts") < 1:
            assert ran.poll() is None, ran.communicate()
            time.sleep(0.05)
        time.sleep(1.0)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
        code, out, err = end(ran, 60)
    assert code == 1, out + err
    assert "Traceback" not in out + err
    assert "failures" in out
    report = report_in(tmp_path / "out")
    failed = sum(report["errors"].values())
    assert failed >= 2
    assert report["shares"]["errors"] > 0
    assert (tmp_path / "out" / "report.html").is_file()
