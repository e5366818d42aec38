"""Callers who dial when they like, targets that are down, slow or die, and a run that can be repeated."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from voice_llm.errors import AtCapacityError, EngineDeadError, InvalidRequestError
from voice_llm.simulator import CallerTurn, CallResult, CallScript, RunResult, TurnResult
from voice_llm.simulator.arrivals import parse_arrivals
from voice_llm.simulator.expectations import Outcome
from voice_llm.simulator.judged import JudgedRun
from voice_llm.simulator.run import Watcher, place_calls
from voice_llm.simulator.scenario import Scenario
from voice_llm.simulator.simulation import Simulation

from .fakes import Heard, Pieces, ScriptedTarget, now, virtually

pytestmark = pytest.mark.unit

# Speaks until 2 s, is answered at 2.5 s, has heard it at 3 s.
SCRIPT = CallScript(turns=(CallerTurn("bir iki"),), speaking_wpm=60, think_s=1.0, listen_chars_per_s=10.0)
YES: Pieces = [(0.5, "Evet.")]


def target(*replies: Pieces, **options: Any) -> ScriptedTarget:
    return ScriptedTarget(replies or [YES], **options)


def place(called: ScriptedTarget, times: Iterable[float], *, duration_s: float = 60.0, **options: Any) -> RunResult:
    async def main() -> RunResult:
        return await place_calls(
            called,
            options.pop("scripts", itertools.repeat(SCRIPT)),
            times,
            duration_s=duration_s,
            clock=now,
            sleep=asyncio.sleep,
            run_id="p",
            **options,
        )

    return virtually(main)


def scenario(name: str = "s", *turns: dict[str, Any], **fields: Any) -> Scenario:
    told = {"name": name, "turns": turns or [{"user": "Hello?"}, {"user": "Thank you."}], **fields}
    return Scenario.model_validate_json(json.dumps(told))


def simulate(called: ScriptedTarget, *scenarios: Scenario, watcher: Watcher | None = None, **options: Any) -> JudgedRun:
    async def main() -> JudgedRun:
        simulation = Simulation(scenarios=scenarios or (scenario(),), **options)
        return await simulation.run(called, run_id="r", clock=now, sleep=asyncio.sleep, watcher=watcher)

    return virtually(main)


def dialled(called: ScriptedTarget) -> list[float]:
    return [heard.opened_s for heard in called.calls]


def busy_after(calls: int) -> Callable[[str], Exception | None]:
    return lambda call_id: AtCapacityError("busy") if int(call_id.split("-")[1]) >= calls else None


@dataclass
class Told(Watcher):
    """A watcher who writes down what it is told, and lets callers hang up after that many turns."""

    most_turns: int = 99
    lines: list[tuple[float, str]] = field(default_factory=list)

    def dialled(self, call_id: str, script: CallScript) -> None:
        self.lines.append((now(), f"{call_id} dialled"))

    def turn(self, script: CallScript, turn: TurnResult) -> bool:
        self.lines.append((now(), f"{turn.call_id} turn {turn.turn}"))
        return turn.turn + 1 < self.most_turns

    def ended(self, call: CallResult) -> None:
        self.lines.append((now(), f"{call.call_id} ended"))


def test_callers_dial_at_their_times_whoever_is_on_the_phone() -> None:
    called = target()
    result = place(called, [0.0, 0.5, 0.5, 7.25])
    assert dialled(called) == pytest.approx([0.0, 0.5, 0.5, 7.25])
    assert [call.started_s for call in result.calls] == pytest.approx([0.0, 0.5, 0.5, 7.25])
    assert [call.call_id for call in result.calls] == ["p-0", "p-1", "p-2", "p-3"]
    assert (result.concurrent, result.errors) == (3, ())
    assert result.wall_s == pytest.approx(10.25)


def test_a_slow_target_delays_nobody_elses_call() -> None:
    called = target([(100.0, "Evet.")], open_s=50.0)
    result = place(called, [0.0, 1.0, 2.0])
    assert [call.started_s for call in result.calls] == pytest.approx([0.0, 1.0, 2.0])
    assert [turn.total_ms for turn in result.turns] == pytest.approx([100_000] * 3)
    assert result.concurrent == 3


def test_nobody_dials_when_the_time_is_up_and_who_is_on_the_phone_comes_to_an_end() -> None:
    called = target()
    result = place(called, itertools.count(step=0.75), duration_s=3.0)
    assert dialled(called) == pytest.approx([0.0, 0.75, 1.5, 2.25])
    assert len(result.turns) == 4
    assert result.wall_s == pytest.approx(5.25)


def test_persons_in_a_hurry_dial_earlier_too() -> None:
    called = target()
    result = place(called, [0.0, 10.0, 20.0], speed=10.0)
    assert dialled(called) == pytest.approx([0.0, 1.0, 2.0])
    assert [turn.total_ms for turn in result.turns] == pytest.approx([500] * 3)


def test_where_no_script_is_left_nobody_dials() -> None:
    called = target()
    assert len(place(called, [0.0, 1.0, 2.0], scripts=[SCRIPT]).calls) == 1
    assert place(target(), []).calls == ()


def test_a_call_that_is_refused_is_on_record_among_the_others() -> None:
    called = target(open_error=lambda call_id: AtCapacityError("busy") if call_id == "p-1" else None)
    result = place(called, [0.0, 1.0, 2.0])
    assert [call.errors for call in result.calls] == [(), ("at_capacity: busy",), ()]
    assert result.calls[1].ended_s == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "value"), [("speed", 0), ("duration_s", 0), ("duration_s", float("inf"))])
def test_an_argument_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(InvalidRequestError) as refused:
        place(target(), [0.0], **options)
    assert refused.value.param == name


def test_a_run_without_a_limit_calls_each_scenario_once_or_each_caller() -> None:
    three = [scenario(name) for name in "abc"]
    assert Simulation(scenarios=three).total_calls == 3
    assert Simulation(scenarios=three, calls=5).total_calls == 5
    assert Simulation(scenarios=three, calls=5, duration_s=60).total_calls is None
    run = simulate(target(), *three, calls=2)
    assert sorted(call.script for call in run.run.calls) == ["a", "b", "c"]


def test_a_run_with_arrivals_has_as_many_calls_as_arrive() -> None:
    called = target()
    arrivals = parse_arrivals("bursts:3:20")
    simulation: dict[str, Any] = {"arrivals": arrivals, "duration_s": 50.0, "seed": 4}
    run = simulate(called, **simulation)
    assert dialled(called) == pytest.approx([0.0] * 3 + [20.0] * 3 + [40.0] * 3)
    assert len(run.run.calls) == Simulation(scenarios=[scenario()], **simulation).total_calls == 9


def test_arrivals_at_random_dial_exactly_when_they_arrive() -> None:
    called = target()
    arrivals = parse_arrivals("poisson:30")
    simulate(called, arrivals=arrivals, duration_s=120.0, seed=9)
    assert dialled(called) == pytest.approx(list(arrivals.times(9, 120.0)))


def test_a_run_for_some_time_keeps_so_many_on_the_phone() -> None:
    called = target()
    run = simulate(called, calls=3, duration_s=60.0)
    assert 60.0 <= run.run.wall_s < 63.0
    assert len(called.calls) > 10
    moments = [at + 1e-6 for at in dialled(called) if 10 < at < 55]
    assert all(sum(c.opened_s <= at < (c.closed_s or 0.0) for c in called.calls) == 3 for at in moments)


def test_a_simulation_that_cannot_run_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match="no scenario") as refused:
        Simulation(scenarios=[])
    assert refused.value.param == "scenarios"
    with pytest.raises(InvalidRequestError, match="no end of their own") as refused:
        Simulation(scenarios=[scenario()], arrivals=parse_arrivals("poisson:3"))
    assert refused.value.param == "duration_s"


@pytest.mark.parametrize("stops", [True, False])
def test_who_stops_on_failure_hangs_up_after_the_first_turn_that_misses(stops: bool) -> None:
    turns = [
        {"user": "One?", "expect": [{"text_contains": "evet"}]},
        {"user": "Two?", "expect": [{"text_contains": "hayır"}]},
        {"user": "Three?", "expect": [{"text_contains": "evet"}]},
    ]
    called = target()
    run = simulate(called, scenario("s", *turns, stop_on_failure=stops))
    assert [len(heard.turns) for heard in called.calls] == [2 if stops else 3]
    assert [turn.result.turn for turn in run.failed] == [1]
    assert run.run.errors == ()
    assert all(heard.closed_s is not None for heard in called.calls)


def test_what_needs_a_better_model_lets_nobody_hang_up() -> None:
    missed = {"text_contains": "hayır", "needs_better_model": True}
    called = target()
    run = simulate(called, scenario("s", {"user": "One?", "expect": [missed]}, {"user": "Two?"}, stop_on_failure=True))
    assert len(run.turns) == 2
    assert run.failed == ()


def test_callers_of_other_scenarios_go_on() -> None:
    missed: list[dict[str, Any]] = [{"user": "One?", "expect": [{"text_contains": "hayır"}]}, {"user": "Two?"}]
    run = simulate(target(), scenario("stops", *missed, stop_on_failure=True), scenario("goes on", *missed))
    assert {call.script: len(call.turns) for call in run.run.calls} == {"stops": 1, "goes on": 2}


def test_times_are_judged_at_the_speed_of_people_only() -> None:
    late = scenario("s", {"user": "One?", "expect": [{"within_ms": 400}]}, {"user": "Two?"}, stop_on_failure=True)
    at_speed = simulate(target(), late)
    assert (len(at_speed.turns), len(at_speed.failed)) == (1, 1)
    hurried = simulate(target(), late, speed=10.0)
    assert (len(hurried.turns), len(hurried.failed)) == (2, 0)
    assert hurried.count(Outcome.NOT_JUDGED) == 1


def test_a_watcher_is_told_in_order_and_may_let_the_caller_hang_up() -> None:
    told = Told(most_turns=1)
    simulate(target(), watcher=told)
    assert [line for _, line in told.lines] == ["r-0 dialled", "r-0 turn 0", "r-0 ended"]
    told = Told()
    simulate(target(), watcher=told, arrivals=parse_arrivals("bursts:2:100"), duration_s=10.0)
    assert sorted(line for _, line in told.lines) == [
        f"r-{call} {what}" for call in (0, 1) for what in ("dialled", "ended", "turn 0", "turn 1")
    ]
    assert [at for at, _ in told.lines] == sorted(at for at, _ in told.lines)


@pytest.mark.parametrize("how", [{"calls": 3}, {"arrivals": parse_arrivals("bursts:3:60"), "duration_s": 60.0}])
def test_a_target_that_is_down_fails_each_call_and_ends_no_run(how: dict[str, Any]) -> None:
    run = simulate(target(open_error=lambda _: EngineDeadError("gone")), **how)
    assert run.run.errors == ("internal: gone",) * 3
    assert (run.run.turns, run.turns, run.failed) == ((), (), ())


def test_a_target_that_is_slow_misses_what_is_expected_in_time_and_fails_no_call() -> None:
    slow = scenario(every_reply=[{"within_ms": 5000}])
    run = simulate(target([(20.0, "Evet.")]), slow, calls=2)
    assert run.run.errors == ()
    assert [verdict.found for turn in run.failed for verdict in turn.verdicts if verdict.fails_run] == ["20000 ms"] * 4


def test_a_target_that_dies_in_a_reply_fails_the_turn_and_ends_the_call() -> None:
    dying: Pieces = [(0.2, "Bir "), (0.2, EngineDeadError("gone"))]
    run = simulate(target(YES, dying), scenario("s", {"user": "One?"}, {"user": "Two?"}, {"user": "Three?"}))
    (call,) = run.run.calls
    assert call.errors == ("internal: gone",)
    assert [(turn.text, turn.error) for turn in call.turns] == [("Evet.", None), ("Bir ", "internal: gone")]
    assert [turn.result.turn for turn in run.failed] == [1]


def test_a_target_that_dies_in_the_middle_of_a_run_fails_the_calls_from_then_on() -> None:
    called = target(open_error=busy_after(4))
    run = simulate(called, arrivals=parse_arrivals("bursts:2:10"), duration_s=50.0)
    assert [bool(call.errors) for call in run.run.calls] == [False] * 4 + [True] * 6
    assert len(run.turns) == 8


@pytest.mark.parametrize(
    "how",
    [{"calls": 4, "duration_s": 90.0}, {"arrivals": parse_arrivals("poisson:40"), "duration_s": 90.0}],
    ids=["at once", "arrivals"],
)
def test_the_same_seed_gives_the_same_run_to_the_last_digit(how: dict[str, Any]) -> None:
    scenarios = [scenario(name, caller={"mishears": 0.5}, every_reply=[{"within_ms": 600}]) for name in "abc"]
    replies: list[Pieces] = [YES, [(0.7, "Hayır, "), (0.4, "olmaz.")], [(0.1, "Tabii.")]]
    first, second, other = (simulate(target(*replies), *scenarios, seed=seed, **how) for seed in (5, 5, 6))
    assert first == second
    assert first.run.to_json() == second.run.to_json()
    assert first != other
    assert first.run.errors == ()


def test_each_call_is_closed_and_none_is_asked_after_it() -> None:
    called = target(YES, [(0.3, EngineDeadError("gone"))])
    simulate(called, calls=3, duration_s=40.0)

    def over(heard: Heard) -> bool:
        asked = [turn[0] for turn in heard.turns] + [hint[0] for hint in heard.hints]
        return heard.closed_s is not None and max(asked) <= heard.closed_s

    assert called.calls
    assert all(over(heard) for heard in called.calls)


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_run_that_never_begins_or_ends_is_refused(duration_s: float) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        Simulation(scenarios=[scenario()], duration_s=duration_s, arrivals=parse_arrivals("poisson:3"))
    assert refused.value.param == "duration_s"


def test_two_scenarios_of_one_name_are_refused_and_the_same_one_twice_is_fine() -> None:
    one, other = scenario("s", {"user": "a"}, {"user": "b"}), scenario("s", {"user": "a"})
    with pytest.raises(InvalidRequestError, match="two scenarios are called 's'"):
        Simulation(scenarios=[one, other])
    assert Simulation(scenarios=[one, one]).total_calls == 2


def test_all_callers_of_a_short_run_dial_in_its_first_half() -> None:
    judged = simulate(target(), scenario(), calls=40, duration_s=30.0)
    assert len([call for call in judged.run.calls if call.started_s - judged.run.started_s <= 15.0]) >= 40
