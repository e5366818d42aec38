"""Supervisor: what ends for good, what is started again, and what is passed on. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from voice_llm.servers.supervisor import ENGINE_DIED, SUPERVISED, Supervisor, this_command

pytestmark = pytest.mark.unit


def child(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(script), *arguments]


def counting(path: Path, endings: list[str]) -> list[str]:
    """A child that notes each of its lives in a file, and ends each in its own way."""
    script = f"""
        import os, sys
        path = sys.argv[1]
        with open(path, "a") as f: f.write("x")
        ends = {endings!r}
        exec(ends[min(os.path.getsize(path), len(ends)) - 1])
    """
    return child(script, str(path))


@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_a_process_that_ends_by_itself_is_not_started_again(tmp_path: Path, status: int) -> None:
    path = tmp_path / "lives"
    assert Supervisor(counting(path, [f"sys.exit({status})"])).run() == status
    assert path.read_text() == "x"


def test_an_abort_and_a_dead_engine_are_survived(tmp_path: Path) -> None:
    path = tmp_path / "lives"
    endings = ["os.abort()", f"sys.exit({ENGINE_DIED})", "os.kill(os.getpid(), 11)", "sys.exit(0)"]
    assert Supervisor(counting(path, endings)).run() == 0
    assert path.read_text() == "xxxx"


def test_a_process_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "lives"
    assert Supervisor(counting(path, ["os.abort()"])).run() == 128 + signal.SIGABRT
    assert path.read_text() == "x" * 5


def test_deaths_that_are_far_apart_are_no_reason_to_give_up(tmp_path: Path) -> None:
    path = tmp_path / "lives"
    times = iter(range(0, 100_000, 20))
    endings = ["os.abort()"] * 7 + ["sys.exit(0)"]
    assert Supervisor(counting(path, endings), clock=lambda: float(next(times))).run() == 0
    assert path.read_text() == "x" * 8


def test_it_is_told_that_it_is_supervised(tmp_path: Path) -> None:
    assert Supervisor(child(f"import os, sys; sys.exit(os.environ.get({SUPERVISED!r}) != '1')")).run() == 0


SUPERVISING = """
    import sys
    from voice_llm.servers.supervisor import Supervisor
    sys.exit(Supervisor([sys.executable, "-c", sys.argv[1]]).run())
"""


def supervising(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(child(SUPERVISING, textwrap.dedent(script)), stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_and_end_it_for_good(number: signal.Signals) -> None:
    script = """
        import signal, sys
        signal.signal(signal.SIGTERM, lambda *_: (print("drained", flush=True), sys.exit(0)))
        signal.signal(signal.SIGINT, lambda *_: (print("drained", flush=True), sys.exit(0)))
        print("up", flush=True)
        while True: signal.pause()
    """
    with supervising(script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.readline() == "drained\n"
        assert process.wait(30) == 0


def test_a_process_that_is_told_to_end_before_it_listens_has_ended_as_wanted() -> None:
    with supervising("import time; print('up', flush=True); time.sleep(60)") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_nothing_is_imported_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise SystemExit('the wrong typer')")
    done = subprocess.run(this_command("--version"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[0]) == (0, "voice-llm"), done.stderr


def test_its_own_death_ends_the_childs_standard_input() -> None:
    script = """
        import os, sys
        print(os.getpid(), flush=True)
        sys.stdin.read()
        print("alone", flush=True)
    """
    with supervising(script) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) != process.pid
        os.kill(process.pid, signal.SIGKILL)
        assert process.stdout.readline() == "alone\n"
