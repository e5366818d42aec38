"""How many calls fit: the search, the machines, and how simulation and measurement are held together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.config import EngineConfig, Profile
from voice_llm.config.profile import ModelSource
from voice_llm.engine.step_costs import StepCosts
from voice_llm.simulator import CallerTurn, Simulation, find_scenarios, parse_objective
from voice_llm.simulator.plan import (
    Agreement,
    CapacityPlan,
    EngineModel,
    LoadPoint,
    MeasuredTime,
    SimulatedRun,
    find_capacity,
    simulate_points,
)
from voice_llm.simulator.script import ScriptedReply
from voice_llm.simulator.virtual import WordTokenizer

pytestmark = pytest.mark.unit

COSTS = StepCosts(decode_ms=(40.0, 50.0), row_ms=10.0, context_ms=0.0, prefill_ms=(0.0, 1.0, 0.0))


@given(st.integers(0, 300), st.integers(1, 256), st.sets(st.integers(1, 40), max_size=4), st.integers(1, 40))
def test_search_finds_the_largest_number_that_holds(limit: int, most: int, known: set[int], start: int) -> None:
    asked: list[int] = []

    def holds(calls: int) -> bool:
        asked.append(calls)
        return calls <= limit

    known = {calls for calls in known if calls <= most}
    held, by = find_capacity(holds, known=sorted(known), start=min(start, most), most=most)
    assert held == min(limit, most)
    assert by == ("search" if limit >= most else "objective")
    assert len(asked) <= len(known) + 2 * most.bit_length() + 1
    assert len(set(asked)) == len(asked), "a number was looked at twice"


def plan(capacity: int) -> CapacityPlan:
    return CapacityPlan(
        profile="p", objective="o", measured=(), simulated=(), costs=COSTS, capacity=capacity, limited_by="objective"
    )


@pytest.mark.parametrize(("capacity", "calls", "needed"), [(8, 8, 1), (8, 9, 2), (8, 40, 5), (1, 3, 3)])
def test_machines_for_so_many_calls_and_one_more_that_may_fail(capacity: int, calls: int, needed: int) -> None:
    replicas = plan(capacity).replicas_for(calls)
    assert replicas is not None
    assert (replicas.needed, replicas.with_spare) == (needed, needed + 1)
    assert (replicas.with_spare - 1) * capacity >= calls


def test_machine_that_holds_no_call_is_not_enough_in_any_number() -> None:
    assert plan(0).replicas_for(1) is None


@pytest.mark.parametrize(
    ("figure", "simulated_ms", "agrees"),
    [
        ("first speech p50", 114.0, True),
        ("first speech p50", 86.0, True),
        ("first speech p50", 117.0, False),
        ("first speech p95", 124.0, True),
        ("first speech p95", 139.0, True),
        ("first speech p95", 141.0, False),
        ("first speech p95", 74.0, False),
    ],
)
def test_simulation_agrees_within_its_bounds_or_the_interval_of_a_high_percentile(
    figure: str, simulated_ms: float, agrees: bool
) -> None:
    assert Agreement(4, figure, 100.0, (90.0, 140.0), simulated_ms).agrees is agrees


def test_plan_holds_what_was_measured_and_simulated_side_by_side() -> None:
    def point(calls: int, p50: float) -> LoadPoint:
        time = MeasuredTime(10, p50, 2 * p50, (p50, p50), (2 * p50, 2 * p50))
        times = {"first_speech": time}
        return LoadPoint(calls=calls, utilisation=0.1, costs=COSTS, times=times, errors=0, met=True, found=())

    both = CapacityPlan(
        profile="p",
        objective="o",
        measured=(point(1, 100.0), point(2, 100.0)),
        simulated=(point(2, 110.0), point(4, 150.0)),
        costs=COSTS,
        capacity=4,
        limited_by="search",
    )
    assert [(a.calls, a.figure, round(a.off, 2)) for a in both.agreement] == [
        (2, "first speech p50", 0.1),
        (2, "first speech p95", 0.1),
    ]
    assert both.to_json()["agreement"][0]["agrees"] is True


def reply(turn: CallerTurn) -> ScriptedReply:
    return ScriptedReply("This is a sentence of some length. And one more of the same kind, to go on.")


def simulated(calls: int, costs: StepCosts = COSTS) -> LoadPoint:
    profile = Profile(name="plan", model=ModelSource(path="none.gguf"), engine=EngineConfig(context_per_call=4096))
    model = EngineModel(profile=profile, tokenizer=WordTokenizer())
    simulation = Simulation(scenarios=find_scenarios(["hotel_booking"]), calls=calls, duration_s=120.0)
    run = SimulatedRun(simulation=simulation, costs=costs, replies=reply)
    bounds = parse_objective("first_speech_p95<=1s")
    ((point, judged),) = simulate_points([run], bounds, model, sequences=calls)
    assert judged.run.errors == ()
    return point


def test_more_calls_and_slower_machines_keep_the_engine_busier_and_callers_waiting() -> None:
    few, many, slow = simulated(1), simulated(6), simulated(1, COSTS.scaled(4.0))
    assert 0 < few.utilisation < many.utilisation <= 1
    assert few.utilisation < slow.utilisation
    assert few.times["first_speech"].p95 < slow.times["first_speech"].p95
    assert few.met
    assert not slow.met
