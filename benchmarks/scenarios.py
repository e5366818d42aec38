"""The built-in scenarios: on the real engine by callers who hurry, and an hour of 1,000 calls in virtual time."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from voice_llm import Profile
from voice_llm.simulator import EngineTarget, JudgedRun, Simulation, find_scenarios, list_scenarios, parse_arrivals
from voice_llm.simulator.expectations import Outcome
from voice_llm.simulator.virtual import VirtualTarget, virtual_engine
from voice_llm.testing import run_in_virtual_time

from .common import PROFILE, Proof, engine_config, running_engine

CALLS: Final = 4
SPEED: Final = 10.0
HOUR_S: Final = 3600.0
HOUR_CALLS: Final = 1000
LONGEST_S: Final = 60.0
_CONTEXT: Final = 4096
_SEQUENCES: Final = 64


async def built_in_scenarios() -> list[Proof]:
    """Let callers of all scenarios call SmolLM2, in process."""
    simulation = Simulation(scenarios=find_scenarios(list_scenarios()), calls=CALLS, speed=SPEED)
    async with running_engine(engine_config(sequences=CALLS, context_per_call=_CONTEXT)) as engine:
        judged = await simulation.run(EngineTarget(engine))
    met, missed = (judged.count(outcome, gates=True) for outcome in (Outcome.PASSED, Outcome.FAILED))
    better = [judged.count(outcome, gates=False) for outcome in (Outcome.PASSED, Outcome.FAILED)]
    return [
        Proof(
            "scenarios",
            "calls of all built-in scenarios to SmolLM2 go well, as far as a small model can be held to it",
            not judged.run.errors and not judged.failed,
            {
                "scenarios": len(simulation.scenarios),
                "turns": len(judged.run.turns),
                "expectations_met": met,
                "expectations_missed": missed,
                "better_model_met": f"{better[0]} of {sum(better)}",
                "errors": len(judged.run.errors),
            },
        )
    ]


async def virtual_hour() -> list[Proof]:
    """Simulate an hour of 1,000 calls, twice."""
    loop = asyncio.get_running_loop()
    began_s = time.monotonic()
    first = await loop.run_in_executor(None, lambda: run_in_virtual_time(_hour()))
    took_s = time.monotonic() - began_s
    second = await loop.run_in_executor(None, lambda: run_in_virtual_time(_hour()))
    return [
        Proof(
            "virtual_hour",
            f"an hour of {HOUR_CALLS} calls takes under {LONGEST_S:.0f} s in virtual time, and is the same each time",
            took_s < LONGEST_S and first == second and not first.run.errors,
            {
                "calls": len(first.run.calls),
                "turns": len(first.run.turns),
                "most_at_once": first.run.concurrent,
                "wall_s": round(took_s, 1),
                "identical": first == second,
                "errors": len(first.run.errors),
            },
        )
    ]


async def _hour() -> JudgedRun:
    simulation = Simulation(
        scenarios=find_scenarios(list_scenarios()), duration_s=HOUR_S, arrivals=parse_arrivals(f"spread:{HOUR_CALLS}")
    )
    loop = asyncio.get_running_loop()
    profile = Profile.load(PROFILE)
    config = profile.engine.replace(sequences=_SEQUENCES, admission="limit")
    async with await virtual_engine(profile.model_copy(update={"engine": config})) as engine:
        return await simulation.run(VirtualTarget(engine), run_id="hour", clock=loop.time)
