"""The ladder is climbed by all systems in rounds, and not further by one that has missed clearly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.bench import run
from benchmarks.bench.__main__ import main
from benchmarks.bench.ladder import Ladder, Plan
from benchmarks.bench.measure import BenchError, paired
from benchmarks.bench.points import Point
from benchmarks.bench.run import check_prompt
from benchmarks.bench.systems import SYSTEMS, systems_named
from benchmarks.bench.window import Window
from benchmarks.bench.workload import Workload
from voice_llm.events import Timings
from voice_llm.simulator import TurnResult

from .bench_points import late, point

pytestmark = pytest.mark.unit

THREE = SYSTEMS[:3]
A, B, C = (system.name for system in THREE)


def plan(**options: Any) -> Plan:
    plain: dict[str, Any] = {"systems": THREE, "calls": (2, 4, 8, 16, 24), "rounds": 2, "point_s": 100.0}
    return Plan(**{**plain, "objective_ms": 1000.0, "stop_ms": 4000.0, "threads": 2, **options})


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


def test_system_far_from_the_objective_climbs_on_up_to_the_bound_that_stops_it() -> None:
    order = climbed(Ladder(plan(rounds=1)), lambda name, calls, round_: late(3900, system=name, calls=calls))
    assert len(order) == 5 * 3
    order = climbed(
        Ladder(plan(rounds=1, stop_ms=3800.0)), lambda name, calls, round_: late(3900, system=name, calls=calls)
    )
    assert [calls for _, calls, name in order if name == A] == [2, 4]


@pytest.mark.parametrize("sitting", [0, 1, 5, 8, 12])
def test_ladder_that_is_gone_on_with_has_the_points_that_one_sitting_would_have_had(sitting: int) -> None:
    whole = climbed(Ladder(plan()), missing)
    held = [missing(name, calls, round_) for round_, calls, name in whole[:sitting]]
    ladder = Ladder(plan(), held)
    one_go = Ladder(plan())
    for found in held:
        one_go.note(found)
    assert ladder.seconds_left() == one_go.seconds_left()
    assert climbed(ladder, missing) == whole[sitting:]


def test_point_that_is_missing_amid_the_held_ones_is_measured() -> None:
    whole = climbed(Ladder(plan()), missing)
    held = [missing(name, calls, round_) for round_, calls, name in whole if (round_, calls, name) != whole[4]]
    assert climbed(Ladder(plan(), held), missing) == [whole[4]]


def test_numbers_of_calls_that_are_new_are_measured_up_to_where_the_system_was_given_up() -> None:
    held = [late(ms, system=A, calls=calls) for calls, ms in ((4, 300), (8, 9000), (16, 9000))]
    ladder = Ladder(plan(systems=THREE[:1], calls=(4, 6, 8, 12, 16, 24), rounds=1), held)
    order = climbed(ladder, lambda name, calls, round_: late(9000, system=name, calls=calls))
    assert [calls for _, calls, _ in order] == [6]


def test_full_run_leaves_nothing_out() -> None:
    ladder = Ladder(plan(full=True))
    assert len(climbed(ladder, missing)) == 2 * 5 * 3


def test_time_that_is_left_shrinks_to_nothing_and_skips_what_was_given_up() -> None:
    chosen = plan()
    ladder = Ladder(chosen)
    assert ladder.seconds_left() == pytest.approx(2 * 3 * sum(map(chosen.seconds, chosen.calls)))
    left = []
    for planned in ladder.points():
        ladder.note(missing(planned.system.name, planned.calls, planned.round))
        left.append(ladder.seconds_left())
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0
    second_of_8 = 7
    assert left[second_of_8 - 1] - left[second_of_8] == pytest.approx(sum(map(chosen.seconds, (8, 16, 24))))


def test_callers_dial_one_by_one_before_the_window_and_no_longer_than_half_of_it() -> None:
    assert Window.of(8, 100) == Window(ramp_s=16, opens_s=21, closes_s=121)
    assert Window.of(64, 100) == Window(ramp_s=50, opens_s=55, closes_s=155)


def test_timings_are_those_of_the_turn_that_ends_when_they_are_told() -> None:
    def turn(asked_s: float, total_ms: float) -> TurnResult:
        return TurnResult(
            call_id="a", turn=0, asked_s=asked_s, total_ms=total_ms, gaps=0, gap_s=0.0, text="", usage=None
        )

    long, short, untold = turn(0.0, 9000.3), turn(5.0, 1000.1), turn(1.0, 5500.0)
    told = [(6.0, Timings(total_ms=400.0)), (9.0003, Timings(total_ms=8000.0)), (20.0, Timings())]
    assert paired([long, untold, short], told) == [(short, told[0][1]), (long, told[1][1])]


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
        (["--stop-ms", "900"], "--stop-ms must be at least --objective-ms"),
        (["--stop-ms", "inf"], "--stop-ms must be at least --objective-ms"),
        (["--full", "--stop-ms", "5000"], "--stop-ms has no effect with --full"),
        (["--resume", "--overwrite"], "not allowed with"),
        (["--resume", "--out", "no_such_bench.json"], "no_such_bench.json holds no points"),
        (["--out", "README.md"], "README.md does not hold a result"),
        (["--threads", "0"], "--threads must be more than 0"),
        (["--out", "no/such/folder/bench.json"], "there is no folder"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_started(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.Run, "go", lambda self, **callbacks: pytest.fail("a run was started"))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_systems_that_hold_the_system_prompt_are_not_sent_it() -> None:
    script = Workload().probe()
    for system in SYSTEMS:
        assert bool(system.asked(script).system_prompt) is not system.holds_system_prompt
