"""The simulated engine against the real one: the same callers, at the same moments, with the same replies.

Callers of the English scenarios call the real engine, three runs for each number of calls. They then call one engine in
virtual time, in the same order, with the step times that the real one had learned in each run and the replies it gave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from voice_llm.simulator import JudgedRun, Simulation, find_scenarios, list_scenarios
from voice_llm.simulator.metrics import TIMES, values_of
from voice_llm.simulator.plan import (
    EngineModel,
    LoadPoint,
    MeasuredTime,
    SimulatedRun,
    agreements,
    measure_point,
    simulate_points,
)
from voice_llm.simulator.virtual import recorded_replies

from .common import Proof, engine_config, running_engine

CALLS: Final = (2, 4, 8, 12)
ROUNDS: Final = 3
MEASURE_S: Final = 60.0
# Beyond it, a queue grows by chance, and no two runs agree with one another.
HIGHEST_UTILISATION: Final = 0.8
_CONTEXT: Final = 4096
_FIGURE: Final = "first_speech"
_TITLE: Final = TIMES[_FIGURE].title


async def simulation_agrees(
    *, calls: Sequence[int] = CALLS, rounds: int = ROUNDS, measure_s: float = MEASURE_S
) -> list[Proof]:
    """Measure, simulate and compare; see the module."""
    # Round by round, since the machine's speed drifts.
    simulations = [_simulation(n, seed, measure_s) for seed in range(rounds) for n in calls]
    config = engine_config(sequences=max(calls), context_per_call=_CONTEXT)
    async with running_engine(config) as engine:
        measured = [await measure_point(engine, simulation, ()) for simulation in simulations]
        runs = [
            SimulatedRun(simulation=simulation, costs=point.costs, replies=recorded_replies(judged.run.turns))
            for simulation, (point, judged) in zip(simulations, measured, strict=True)
        ]
        model = EngineModel.of(engine)
        simulated = await asyncio.to_thread(simulate_points, runs, (), model, sequences=max(calls))
    return [_proof(n, measured[place :: len(calls)], simulated[place :: len(calls)]) for place, n in enumerate(calls)]


def _simulation(calls: int, seed: int, measure_s: float) -> Simulation:
    english = tuple(s for s in find_scenarios(list_scenarios()) if s.language == "en")
    return Simulation(scenarios=english, calls=calls, duration_s=measure_s, seed=seed)


def _proof(
    calls: int,
    measured: Sequence[tuple[LoadPoint, JudgedRun]],
    simulated: Sequence[tuple[LoadPoint, JudgedRun]],
) -> Proof:
    real, virtual = (_pooled(runs) for runs in (measured, simulated))
    found = agreements(calls, _TITLE, real, virtual)
    busy = [sum(point.utilisation for point, _ in runs) / len(runs) for runs in (measured, simulated)]
    errors = sum(point.errors for runs in (measured, simulated) for point, _ in runs)
    return Proof(
        f"simulation_{calls}_calls",
        f"{calls} simulated calls hear replies when real ones do: p50 within 15 %, p95 within 25 % or its interval",
        not errors and (all(a.agrees for a in found) or busy[0] > HIGHEST_UTILISATION),
        {
            "runs": len(measured),
            "turns": [real.count, virtual.count],
            **{a.figure: [round(a.measured_ms, 1), round(a.simulated_ms, 1)] for a in found},
            "p95_interval": [round(ms, 1) for ms in real.p95_interval],
            "off": [round(a.off, 3) for a in found],
            "utilisation": [round(share, 3) for share in busy],
            "errors": errors,
        },
    )


def _pooled(runs: Sequence[tuple[LoadPoint, JudgedRun]]) -> MeasuredTime:
    return MeasuredTime.of([ms for _, judged in runs for ms in values_of(judged, _FIGURE)])
