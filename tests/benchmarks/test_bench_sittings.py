"""A run goes on with what a file holds, if that was measured alike, and overwrites nothing unasked."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import __main__ as command
from benchmarks.bench import run
from benchmarks.bench.__main__ import main
from benchmarks.bench.commit import commit
from benchmarks.bench.ladder import Plan, Planned
from benchmarks.bench.points import Point
from benchmarks.bench.results import read, write
from benchmarks.bench.sittings import ResumeError, held, resume
from benchmarks.bench.systems import SYSTEMS

from .bench_points import ABOUT, point

pytestmark = pytest.mark.unit

A, B = (system.name for system in SYSTEMS[:2])
TWO = ["--systems", A, B, "--calls", "2", "4", "--rounds", "1"]


class Sitting:
    """The command, with measurements that take no time, and an interrupt after so many of them."""

    def __init__(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out = out
        self.about = ABOUT
        self.measured: list[tuple[str, int, int]] = []
        self._left = 0
        monkeypatch.setattr(run.Run, "go", lambda running, **callbacks: self._go(running, **callbacks))
        monkeypatch.setattr(command, "describe", self._describe)
        monkeypatch.setattr(command, "bench_model", lambda weights: out.parent / "tiny.gguf")

    def __call__(self, *arguments: str, points: int = 100) -> int:
        self.measured = []
        self._left = points
        return main([*arguments, "--out", str(self.out)])

    def _describe(self, plan: Plan, model: Path) -> dict[str, Any]:
        systems = {system.name: system.how for system in plan.systems}
        return {**self.about, "calls": list(plan.calls), "rounds": plan.rounds, "systems": systems, "peers": [A, B]}

    def _go(self, running: run.Run, *, on_start: Callable[[Planned], None], on_point: Callable[[Point], None]) -> None:
        for planned in running.ladder.points():
            if not self._left:
                raise KeyboardInterrupt
            self._left -= 1
            on_start(planned)
            found = point(planned.system.name, planned.calls, planned.round)
            self.measured.append((found.system, found.calls, found.round))
            running.points.append(found)
            running.ladder.note(found)
            on_point(found)


@pytest.fixture
def sitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sitting:
    return Sitting(tmp_path / "bench.json", monkeypatch)


def test_interrupt_keeps_what_was_measured(sitting: Sitting, capsys: pytest.CaptureFixture[str]) -> None:
    assert sitting(*TWO, points=1) == 130
    assert [found.system for found in read(sitting.out)[1]] == [A]
    assert f"| `{A}` | 2 or more" in capsys.readouterr().out


def test_resume_measures_what_is_left_and_keeps_what_is_there(sitting: Sitting) -> None:
    assert sitting(*TWO, points=3) == 130
    assert sitting(*TWO, "--resume") == 0
    assert sitting.measured == [(B, 4, 0)]
    assert [(found.system, found.calls) for found in read(sitting.out)[1]] == [(A, 2), (B, 2), (A, 4), (B, 4)]
    assert sitting(*TWO, "--resume") == 0
    assert sitting.measured == []


def test_resume_with_other_systems_calls_and_rounds_keeps_the_points_that_it_does_not_plan(sitting: Sitting) -> None:
    assert sitting("--systems", B, "--calls", "2", "--rounds", "2") == 0
    assert sitting("--systems", A, "--calls", "8", "--rounds", "1", "--resume") == 0
    about, points = read(sitting.out)
    assert [(found.system, found.calls, found.round) for found in points] == [(B, 2, 0), (B, 2, 1), (A, 8, 0)]
    assert list(about["systems"]) == list(about["capacity"]) == [A, B]
    assert (about["calls"], about["rounds"]) == ([2, 8], 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"objective_ms": 800.0}, "objective_ms was 1000.0 and is 800.0"),
        ({"point_s": 50.0}, "point_s was 100.0 and is 50.0"),
        ({"context_tokens": 4096}, "context_tokens was 2048 and is 4096"),
        ({"machine": {**ABOUT["machine"], "cpu": "6502"}}, 'machine.cpu was "Z80" and is "6502"'),
        ({"machine": {**ABOUT["machine"], "model": "big.gguf"}}, 'machine.model was "tiny.gguf" and is "big.gguf"'),
        ({"machine": {**ABOUT["machine"], "threads": 1}}, "machine.threads was 2 and is 1"),
        ({"workload": {**ABOUT["workload"], "turns": 5}}, "workload.turns was 6 and is 5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_resume_of_what_was_measured_otherwise_is_refused_and_named(
    change: dict[str, Any], words: str, sitting: Sitting, capsys: pytest.CaptureFixture[str]
) -> None:
    sitting(*TWO, points=3)
    kept = sitting.out.read_text()
    sitting.about = {**ABOUT, **change}
    with pytest.raises(SystemExit) as ended:
        sitting(*TWO, "--resume")
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert sitting.measured == []
    assert sitting.out.read_text() == kept


def test_system_that_is_run_otherwise_is_not_gone_on_with() -> None:
    other = {**ABOUT, "systems": {"ours": "with another flag", "third": "new"}}
    with pytest.raises(ResumeError, match='"ours" was "our own" and is "with another flag"'):
        resume(ABOUT, other)


def test_commands_of_all_sittings_are_told_once_each() -> None:
    first = resume({**ABOUT, "commands": ["a"]}, {**ABOUT, "commands": ["b"]})
    assert resume(first, {**ABOUT, "commands": ["b"]})["commands"] == ["a", "b"]


def test_points_are_not_overwritten_unasked(sitting: Sitting, capsys: pytest.CaptureFixture[str]) -> None:
    sitting(*TWO)
    with pytest.raises(SystemExit):
        sitting(*TWO)
    assert "holds 4 points: --resume goes on with them, --overwrite begins anew" in capsys.readouterr().err
    assert sitting(*TWO, "--overwrite", points=1) == 130
    assert len(read(sitting.out)[1]) == 1


def test_result_without_points_may_be_overwritten(tmp_path: Path) -> None:
    assert held(tmp_path / "none.json") is None
    write(tmp_path / "bench.json", ABOUT, [])
    assert held(tmp_path / "bench.json") is None


def test_result_of_another_version_is_not_gone_on_with(tmp_path: Path) -> None:
    about = {name: value for name, value in ABOUT.items() if name != "context_tokens"}
    write(tmp_path / "bench.json", about, [point()])
    with pytest.raises(ResumeError, match="does not tell context_tokens"):
        held(tmp_path / "bench.json")


def _git(folder: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *settings, *arguments], check=True, capture_output=True)


def test_commit_tells_of_changed_code_and_not_of_changed_results(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
    _git(tmp_path, "init")
    assert commit(tmp_path) is None
    code, results = tmp_path / "code.py", tmp_path / "benchmarks" / "results" / "bench.json"
    results.parent.mkdir(parents=True)
    code.write_text("a = 1\n")
    results.write_text("{}")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-m", "Begin")
    clean = commit(tmp_path)
    assert clean is not None
    assert "dirty" not in clean
    results.write_text("[]")
    (tmp_path / "README.md").write_text("new figures")
    assert commit(tmp_path) == clean
    assert commit(results.parent) is None
    code.write_text("a = 2\n")
    assert commit(tmp_path) == f"{clean}-dirty"
