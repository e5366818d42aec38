"""The simulated engine against the real one: the same callers, at the same moments, with the same replies.

Callers of the English scenarios call the real engine, three runs for each number of calls. They then call the engine in
virtual time, with the step times that the real one has learned and the replies that it gave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from voice_llm.simulator import JudgedRun, Simulation, find_scenarios, list_scenarios
from voice_llm.simulator.metrics import TIMES, values_of
from voice_llm.simulator.plan import EngineModel, LoadPoint, MeasuredTime, agreements, measure_point, simulate_points

from .common import Proof, engine_config, running_engine

CALLS: Final = (2, 4, 8, 12)
ROUNDS: Final = 3
MEASURE_S: Final = 75.0
# Beyond it, a queue grows by chance, and no two runs agree with one another.
HIGHEST_UTILISATION: Final = 0.8
_CONTEXT: Final = 4096
_FIGURE: Final = "first_speech"
_TITLE: Final = TIMES[_FIGURE].title


async def simulation_agrees(
    *, calls: Sequence[int] = CALLS, rounds: int = ROUNDS, measure_s: float = MEASURE_S
) -> list[Proof]:
    """Measure, simulate and compare; see the module."""
    simulations = [[_simulation(n, seed, measure_s) for seed in range(rounds)] for n in calls]
    config = engine_config(sequences=max(calls), context_per_call=_CONTEXT)
    async with running_engine(config) as engine:
        measured = [[await measure_point(engine, simulation, ()) for simulation in runs] for runs in simulations]
        model = await EngineModel.of(engine, (turn for runs in measured for _, run in runs for turn in run.run.turns))
        # One engine for all runs, in the same order, as the real one keeps what it has computed before.
        every = [simulation for runs in simulations for simulation in runs]
        found = iter(await asyncio.to_thread(simulate_points, every, (), model, sequences=max(calls)))
    simulated = [[next(found) for _ in runs] for runs in simulations]
    return [_proof(n, real, virtual) for n, real, virtual in zip(calls, measured, simulated, strict=True)]


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
