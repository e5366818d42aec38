"""One number of calls, measured on an engine or simulated with its costs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

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
from ..virtual import Replies, VirtualEngine, VirtualTarget, virtual_engine

__all__ = ["EngineModel", "LoadPoint", "MeasuredTime", "SimulatedRun", "measure_point", "simulate_points"]

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
        costs: What its steps took then.
        times: ``first_token`` and ``first_speech``; missing where no turn has one.
        errors: How often something failed.
        met: Whether the objective holds.
        found: What was found for each bound of it, in words.
    """

    calls: int
    utilisation: float
    costs: StepCosts
    times: dict[str, MeasuredTime]
    errors: int
    met: bool
    found: tuple[str, ...]

    @classmethod
    def of(cls, judged: JudgedRun, utilisation: float, costs: StepCosts, objective: Sequence[Bound]) -> LoadPoint:
        """Summarise a run."""
        checked = check_objective(objective, judged)
        return cls(
            calls=judged.run.concurrent,
            utilisation=utilisation,
            costs=costs,
            times={name: MeasuredTime.of(values) for name in _TIMES if (values := values_of(judged, name))},
            errors=len(judged.run.errors),
            met=all(check.met for check in checked) and not judged.run.errors,
            found=tuple(f"{check.bound.text}: {check.found}" for check in checked),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as ``json.dumps`` takes it."""
        return dataclasses.asdict(self) | {"costs": self.costs.to_json()}


async def measure_point(
    engine: Engine, simulation: Simulation, objective: Sequence[Bound], *, watcher: Watcher | None = None
) -> tuple[LoadPoint, JudgedRun]:
    """Let the callers of a simulation call a real engine, in real time."""
    before = (await engine.stats()).batcher.step_ms
    judged = await simulation.run(EngineTarget(engine), watcher=watcher)
    busy_ms = (await engine.stats()).batcher.step_ms - before
    costs = await engine.step_costs()
    return LoadPoint.of(judged, busy_ms / 1e3 / judged.run.wall_s, costs, objective), judged


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineModel:
    """What is known of a real engine, so that one in virtual time can stand for it.

    Attributes:
        profile: Sizes and choices, as the real one runs with them.
        tokenizer: Of the real one, which has to live for as long.
    """

    profile: Profile
    tokenizer: Tokenizer

    @classmethod
    def of(cls, engine: Engine) -> Self:
        """Read an engine."""
        config = dataclasses.replace(engine.profile.engine, context_per_call=engine.backend.info.context_per_call)
        return cls(
            profile=engine.profile.model_copy(update={"engine": config}),
            tokenizer=engine.backend,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRun:
    """A run in virtual time.

    Attributes:
        simulation: Who calls.
        costs: What the engine's steps take meanwhile.
        replies: What it says.
    """

    simulation: Simulation
    costs: StepCosts
    replies: Replies


def simulate_points(
    runs: Sequence[SimulatedRun],
    objective: Sequence[Bound],
    model: EngineModel,
    *,
    sequences: int,
) -> list[tuple[LoadPoint, JudgedRun]]:
    """Let the callers of runs, one after the other, call one engine in virtual time.

    Blocks, and must not run on a thread with a running event loop.

    Args:
        runs: The runs.
        objective: What should hold.
        model: Of the real engine.
        sequences: How many the engine has.
    """
    return run_in_virtual_time(_simulate(runs, objective, model, sequences))


async def _simulate(
    runs: Sequence[SimulatedRun],
    objective: Sequence[Bound],
    model: EngineModel,
    sequences: int,
) -> list[tuple[LoadPoint, JudgedRun]]:
    config = dataclasses.replace(model.profile.engine, sequences=sequences, admission="limit")
    profile = model.profile.model_copy(update={"engine": config})
    first = runs[0]
    async with await virtual_engine(
        profile, first.costs, tokenizer=model.tokenizer, seed=first.simulation.seed
    ) as engine:
        return [
            await _simulate_one(engine, run, objective, run_id=f"virtual-{number}") for number, run in enumerate(runs)
        ]


async def _simulate_one(
    engine: VirtualEngine, run: SimulatedRun, objective: Sequence[Bound], *, run_id: str
) -> tuple[LoadPoint, JudgedRun]:
    engine.simulated.use_costs(run.costs)
    target = VirtualTarget(engine, replies=run.replies)
    before_ms, before = (await engine.stats()).batcher.step_ms, engine.simulated.counters.batches
    judged = await run.simulation.run(target, run_id=run_id, clock=asyncio.get_running_loop().time)
    # A virtual step counts its own time; what else a step takes, its driver adds.
    batches = engine.simulated.counters.batches - before
    busy_ms = (await engine.stats()).batcher.step_ms - before_ms + run.costs.step_ms * batches
    return LoadPoint.of(judged, min(1.0, busy_ms / 1e3 / judged.run.wall_s), run.costs, objective), judged
