"""The ladder is climbed by all systems in rounds, and not further by one that has missed clearly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import __main__ as command
from benchmarks.bench import run
from benchmarks.bench.__main__ import main
from benchmarks.bench.measure import BenchError, Window
from benchmarks.bench.results import Point, read
from benchmarks.bench.run import Ladder, Plan, check_prompt
from benchmarks.bench.systems import SYSTEMS, systems_named
from benchmarks.bench.workload import Workload

from .bench_points import ABOUT, late, point

pytestmark = pytest.mark.unit

THREE = SYSTEMS[:3]
A, B, C = (system.name for system in THREE)


def plan(**options: Any) -> Plan:
    plain: dict[str, Any] = {"systems": THREE, "calls": (2, 4, 8, 16, 24), "rounds": 2, "point_s": 100.0}
    return Plan(**{**plain, "objective_ms": 1000.0, "threads": 2, **options})


def climbed(ladder: Ladder, found: Callable[[str, int, int], Point]) -> list[tuple[int, int, str]]:
    order = []
    for planned in ladder.points():
        order.append((planned.round, planned.calls, planned.system.name))
        ladder.note(found(planned.system.name, planned.calls, planned.round))
    return order


def test_systems_take_turns_at_each_number_of_calls_and_the_first_changes_by_round() -> None:
    order = climbed(Ladder(plan(calls=(2, 4))), lambda name, calls, round_: point(name, calls, round_))
    assert order[:6] == [(0, 2, A), (0, 2, B), (0, 2, C), (0, 4, A), (0, 4, B), (0, 4, C)]
    assert order[6:] == [(1, 2, B), (1, 2, C), (1, 2, A), (1, 4, B), (1, 4, C), (1, 4, A)]


def missing(name: str, calls: int, round_: int) -> Point:
    """B misses clearly from 4 calls on in the first round; C at 4 and at 16, not in a row."""
    missed = (name == B and calls >= 4 and round_ == 0) or (name == C and calls in (4, 16))
    return late(5000 if missed else 300, system=name, calls=calls, round_=round_)


def test_system_that_missed_clearly_twice_in_a_row_is_left_out_of_the_rest_of_the_round() -> None:
    ladder = Ladder(plan())
    order = climbed(ladder, missing)
    assert [calls for round_, calls, name in order if (round_, name) == (0, B)] == [2, 4, 8]
    assert [calls for round_, calls, name in order if (round_, name) == (0, C)] == [2, 4, 8, 16, 24]
    assert [calls for round_, calls, name in order if (round_, name) == (1, B)] == [2, 4, 8, 16, 24]
    assert ladder.stopped == [{"system": B, "round": 0, "not_measured": [16, 24]}]


def test_full_run_leaves_nothing_out() -> None:
    ladder = Ladder(plan(full=True))
    assert len(climbed(ladder, missing)) == 2 * 5 * 3
    assert ladder.stopped == []


def test_time_that_is_left_shrinks_to_nothing_and_skips_what_was_given_up() -> None:
    chosen = plan()
    ladder = Ladder(chosen)
    assert ladder.seconds_left(None) == pytest.approx(2 * 3 * sum(map(chosen.seconds, chosen.calls)))
    left = []
    for planned in ladder.points():
        ladder.note(missing(planned.system.name, planned.calls, planned.round))
        left.append(ladder.seconds_left(planned))
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
    second_of_8 = 7
    assert left[second_of_8 - 1] - left[second_of_8] == pytest.approx(sum(map(chosen.seconds, (8, 16, 24))))


def test_callers_dial_one_by_one_before_the_window_and_no_longer_than_half_of_it() -> None:
    assert Window.of(8, 100) == Window(ramp_s=16, opens_s=21, closes_s=121)
    assert Window.of(64, 100) == Window(ramp_s=50, opens_s=55, closes_s=155)


def test_system_that_reads_another_prompt_ends_the_run() -> None:
    check_prompt("peer", 500, 500)
    with pytest.raises(BenchError, match="peer reads 680 tokens in a prompt of 500"):
        check_prompt("peer", 680, 500)


def test_systems_are_taken_in_the_order_of_the_table() -> None:
    assert [system.name for system in systems_named(["voice-llm", "llama-server"])] == ["llama-server", "voice-llm"]
    with pytest.raises(KeyError):
        systems_named(["vllm"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--systems", "vllm"], "invalid choice: 'vllm'"),
        (["--calls", "0", "2"], "--calls must be more than 0"),
        (["--calls", "4", "2"], "must go up"),
        (["--calls", "512"], "at most 256"),
        (["--rounds", "0"], "--rounds must be more than 0"),
        (["--point-s", "nan"], "--point-s must be more than 0"),
        (["--objective-ms", "-1"], "--objective-ms must be more than 0"),
        (["--threads", "0"], "--threads must be more than 0"),
        (["--out", "no/such/folder/bench.json"], "there is no folder"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_started(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.Run, "go", lambda self: pytest.fail("a run was started"))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_interrupt_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def go(self: run.Run) -> None:
        planned = next(self.ladder.points())
        self.points.append(point(A, planned.calls))
        self._on_point(planned, self.points[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(run.Run, "go", go)
    monkeypatch.setattr(command, "_about", lambda plan, model: ABOUT)
    monkeypatch.setattr(command, "model_path", lambda: tmp_path / "tiny.gguf")
    out = tmp_path / "bench.json"
    assert main(["--out", str(out)]) == 130
    assert [found.system for found in read(out)[1]] == [A]
    assert f"| `{A}` | 2 or more" in capsys.readouterr().out


def test_systems_that_hold_the_system_prompt_are_not_sent_it() -> None:
    script = Workload().probe()
    for system in SYSTEMS:
        assert bool(system.asked(script).system_prompt) is not system.holds_system_prompt
