"""One number of calls, measured on an engine or simulated with its costs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...backend import Tokenizer
from ...config import Profile
from ...engine.step_costs import StepCosts
from ...runtime import Engine
from ...testing import run_in_virtual_time
from ..judged import JudgedRun
from ..metrics import values_of
from ..objective import Bound, check_objective
from ..percentiles import bootstrap_interval, percentile
from ..run import Watcher
from ..simulation import Simulation
from ..targets import EngineTarget
from ..virtual import Replies, VirtualTarget, virtual_engine

__all__ = ["LoadPoint", "MeasuredTime", "measure_point", "simulate_point"]

_TIMES: Final = ("first_token", "first_speech")


@dataclass(frozen=True, slots=True)
class MeasuredTime:
    """A time of the turns of a point, in milliseconds.

    Attributes:
        count: Turns that have it.
        p50: Their median.
        p95: Their 95th percentile.
        p50_interval: Where the median is with 95 % confidence, by bootstrap.
        p95_interval: Where the 95th percentile is.
    """

    count: int
    p50: float
    p95: float
    p50_interval: tuple[float, float]
    p95_interval: tuple[float, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> MeasuredTime:
        """Summarise at least one value."""
        return cls(
            len(values),
            percentile(values, 50),
            percentile(values, 95),
            bootstrap_interval(values, 50),
            bootstrap_interval(values, 95),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """How it is with so many callers.

    Attributes:
        calls: Callers on the phone at once.
        utilisation: Share of the time in which the engine works, 0 to 1.
        times: ``first_token`` and ``first_speech``; missing where no turn has one.
        errors: How often something failed.
        met: Whether the objective holds.
        found: What was found for each bound of it, in words.
    """

    calls: int
    utilisation: float
    times: dict[str, MeasuredTime]
    errors: int
    met: bool
    found: tuple[str, ...]

    @classmethod
    def of(cls, judged: JudgedRun, utilisation: float, objective: Sequence[Bound]) -> LoadPoint:
        """Summarise a run."""
        checked = check_objective(objective, judged)
        return cls(
            calls=judged.run.concurrent,
            utilisation=utilisation,
            times={name: MeasuredTime.of(values) for name in _TIMES if (values := values_of(judged, name))},
            errors=len(judged.run.errors),
            met=all(check.met for check in checked) and not judged.run.errors,
            found=tuple(f"{check.bound.text}: {check.found}" for check in checked),
        )


async def measure_point(
    engine: Engine, simulation: Simulation, objective: Sequence[Bound], *, watcher: Watcher | None = None
) -> tuple[LoadPoint, JudgedRun]:
    """Let the callers of a simulation call a real engine, in real time."""
    before = (await engine.stats()).batcher.step_ms
    judged = await simulation.run(EngineTarget(engine), watcher=watcher)
    busy_ms = (await engine.stats()).batcher.step_ms - before
    return LoadPoint.of(judged, busy_ms / 1e3 / judged.run.wall_s, objective), judged


def settled(engine: Engine) -> Profile:
    """Return the profile as a real engine runs it, for one in virtual time."""
    config = dataclasses.replace(engine.profile.engine, context_per_call=engine.backend.info.context_per_call)
    return engine.profile.model_copy(update={"engine": config})


def simulate_point(
    simulation: Simulation,
    objective: Sequence[Bound],
    *,
    profile: Profile,
    tokenizer: Tokenizer,
    costs: StepCosts,
    replies: Replies,
    hints: bool = True,
    sequences: int | None = None,
) -> tuple[LoadPoint, JudgedRun]:
    """Let them call the engine in virtual time; blocks, and must not run on a thread with a running event loop.

    Args:
        simulation: Who calls.
        objective: What should hold.
        profile: The engine's, see ``settled``.
        tokenizer: Of the real engine.
        costs: What its steps take.
        replies: What it says.
        hints: Whether callers' words are told while they are said.
        sequences: How many the engine has; one for each call by default.
    """
    config = dataclasses.replace(profile.engine, sequences=sequences or simulation.calls, admission="limit")
    profile = profile.model_copy(update={"engine": config})
    return run_in_virtual_time(_simulate(simulation, objective, profile, tokenizer, costs, replies, hints=hints))


async def _simulate(
    simulation: Simulation,
    objective: Sequence[Bound],
    profile: Profile,
    tokenizer: Tokenizer,
    costs: StepCosts,
    replies: Replies,
    *,
    hints: bool,
) -> tuple[LoadPoint, JudgedRun]:
    loop = asyncio.get_running_loop()
    engine = await virtual_engine(profile, costs, tokenizer=tokenizer, seed=simulation.seed)
    try:
        before = (await engine.stats()).batcher.step_ms
        target = VirtualTarget(engine, replies=replies, early=hints)
        judged = await simulation.run(target, run_id="virtual", clock=loop.time)
        busy_ms = (await engine.stats()).batcher.step_ms - before
    finally:
        await engine.close()
    # A virtual step counts its own time; what else a step takes, its driver adds.
    steps_ms = busy_ms + costs.step_ms * engine.simulated.counters.batches
    return LoadPoint.of(judged, min(1.0, steps_ms / 1e3 / judged.run.wall_s), objective), judged
