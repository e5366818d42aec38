"""The simulated engine against queueing theory: the mean wait of M/D/1, at loads of 0.5 and 0.8.

One sequence, Poisson arrivals, and the same work for each: a prompt of a fixed length and no reply. Theory (Pollaczek
and Khinchine) has a mean wait of load x service / (2 (1 - load)).
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Final

from voice_llm.config import EngineConfig, Profile
from voice_llm.config.profile import ModelSource
from voice_llm.engine.step_costs import StepCosts
from voice_llm.simulator import CallerTurn, CallResult, CallScript, RunResult, place_calls, run_calls
from voice_llm.simulator.arrivals import parse_arrivals
from voice_llm.simulator.script import ScriptedReply
from voice_llm.simulator.virtual import VirtualTarget, virtual_engine
from voice_llm.testing import run_in_virtual_time

from .common import Proof

LOADS: Final = (0.5, 0.8)
# At least 200,000 come, whatever the seed.
ARRIVALS: Final = 202_000
WITHIN: Final = 0.03
_MS_A_TOKEN: Final = 4.0
_COSTS: Final = StepCosts(decode_ms=(0.0,), row_ms=0.0, context_ms=0.0, prefill_ms=(0.0, _MS_A_TOKEN, 0.0))
_CALLER: Final = CallScript(
    turns=(CallerTurn("hello", max_tokens=16, reply=ScriptedReply("")),),
    partials=False,
    prefill_on_open=False,
    speaking_wpm=1e9,
)


def theory_wait(load: float) -> float:
    """Return the mean wait in units of the service time."""
    return load / (2 * (1 - load))


def mean_wait_of(load: float, *, arrivals: int, seed: int) -> float:
    """Simulate and return the mean wait in units of the service time."""
    result, service_s = run_in_virtual_time(_simulate(load, arrivals, seed))
    if result.errors:
        raise RuntimeError(f"calls failed: {result.errors[0]}")
    return sum(_time_in_system_s(call) - service_s for call in result.calls) / len(result.calls) / service_s


def _time_in_system_s(call: CallResult) -> float:
    """From dialling, since opening a call waits for the step that runs, too."""
    return call.turns[0].ended_s - call.started_s


async def _simulate(load: float, arrivals: int, seed: int) -> tuple[RunResult, float]:
    loop = asyncio.get_running_loop()
    config = EngineConfig(sequences=1, context_per_call=256, admission="limit")
    profile = Profile(name="queue", model=ModelSource(path="none.gguf"), engine=config)
    engine = await virtual_engine(profile, _COSTS, max_calls=arrivals)
    try:
        target = VirtualTarget(engine)
        # The first call computes what all prompts begin with; the second one has the work of each that follows.
        alone = await run_calls(target, [_CALLER] * 2, concurrent=1, clock=loop.time)
        service_s = _time_in_system_s(alone.calls[1])
        per_minute = load / service_s * 60
        duration_s = arrivals * service_s / load
        times = parse_arrivals(f"poisson:{per_minute}").times(seed, duration_s)
        scripts = iter(lambda: _CALLER, None)
        return await place_calls(target, scripts, times, duration_s=duration_s, clock=loop.time), service_s
    finally:
        await engine.close()


async def queue_theory(*, arrivals: int = ARRIVALS, seed: int = 1) -> list[Proof]:
    """Hold the simulated engine against theory; see the module."""
    loop = asyncio.get_running_loop()
    proofs = []
    for load in LOADS:
        # On a thread of its own, since a loop in virtual time cannot run inside another.
        began_s = time.monotonic()
        found = await loop.run_in_executor(None, partial(mean_wait_of, load, arrivals=arrivals, seed=seed))
        off = found / theory_wait(load) - 1
        proofs.append(
            Proof(
                f"queue_theory_{load:g}",
                f"the simulated engine has the mean wait of M/D/1 at a load of {load:g} within {WITHIN:.0%}",
                abs(off) <= WITHIN,
                {
                    "arrivals": arrivals,
                    "wait_of_service": round(found, 4),
                    "theory": round(theory_wait(load), 4),
                    "off": round(off, 4),
                    "wall_s": round(time.monotonic() - began_s, 1),
                },
            )
        )
    return proofs
