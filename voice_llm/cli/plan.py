"""``voice-llm plan``: how many calls this machine holds, and how many machines so many calls need."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError, VoiceLLMError
from ..runtime import Engine
from ..simulator.judged import JudgedRun
from ..simulator.objective import Bound, parse_objective
from ..simulator.plan import (
    CapacityPlan,
    EngineModel,
    LoadPoint,
    SimulatedRun,
    find_capacity,
    measure_point,
    simulate_points,
)
from ..simulator.report import LiveView
from ..simulator.scenario import Scenario, find_scenarios, list_scenarios
from ..simulator.simulation import Simulation
from ..simulator.virtual import recorded_replies
from .client import consoles, print_json, show_error
from .exit_codes import ExitCode, exit_code_of
from .options import (
    DEFAULT_PROFILE,
    ContextOption,
    EngineOptions,
    GpuLayersOption,
    JsonOption,
    KvOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
)
from .simulate_run import names_of

__all__ = ["plan"]

_OBJECTIVE: Final = "first_speech_p95<=1s,gaps<=1%"
_SHOWN_NEEDS: Final = (10, 50, 100, 500)


def plan(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(
            help="What callers call about: files, folders or names; all built-in ones of the profile's language."
        ),
    ] = None,
    objective: Annotated[str, typer.Option(help="What has to hold.", metavar="BOUNDS")] = _OBJECTIVE,
    measure: Annotated[
        str, typer.Option(help="Numbers of calls that are measured on the real engine.", metavar="N,N,...")
    ] = "1,2,4",
    measure_s: Annotated[
        float, typer.Option("--measure-s", help="How long each of them is measured.", min=5, metavar="S")
    ] = 60.0,
    simulate_s: Annotated[
        float,
        typer.Option("--simulate-s", help="How long each number is simulated, in virtual time.", min=60, metavar="S"),
    ] = 900.0,
    most: Annotated[int, typer.Option("--max", help="Where the search ends.", min=1, max=256, metavar="N")] = 128,
    need: Annotated[
        list[int] | None, typer.Option(help="Say how many machines so many calls need.", min=1, metavar="CALLS")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed, the same callers.", metavar="N")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="Write the plan to this file, as JSON; simulate --costs takes it.", metavar="FILE"),
    ] = None,
    as_json: JsonOption = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    model: ModelOption = None,
    context_per_call: ContextOption = None,
    threads: ThreadsOption = None,
    gpu_layers: GpuLayersOption = None,
    kv: KvOption = None,
) -> None:
    """Find the largest number of calls for which an objective holds on this machine.

    Small numbers are measured on the real engine, in real time.
    Larger ones are simulated: the engine runs in virtual time with the step times that it has learned.
    The numbers that were measured are simulated too, to see how well that agrees.

    Ends with 4 where not even one call meets the objective.
    """
    try:
        planner = _Planner(
            names=scenarios or [],
            objective=objective,
            measure=_numbers(measure),
            measure_s=measure_s,
            simulate_s=simulate_s,
            most=most,
            seed=seed,
            quiet=as_json,
            engine=EngineOptions(
                profile=profile,
                model=model,
                calls=max(_numbers(measure)),
                context_per_call=context_per_call,
                threads=threads,
                gpu_layers=gpu_layers,
                kv=kv,
                admission="limit",
            ),
        )
        found = asyncio.run(planner.plan())
        needs = need or _SHOWN_NEEDS
        if output is not None:
            _write(output, found.to_json(needs))
        if as_json:
            print_json(found.to_json(needs))
        else:
            _show(found, needs)
        code = ExitCode.DONE if found.capacity else ExitCode.OBJECTIVE_MISSED
    except VoiceLLMError as error:
        show_error(error, as_json=as_json)
        code = exit_code_of(error)
    except KeyboardInterrupt:
        code = ExitCode.FAILED
    raise typer.Exit(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planner:
    names: Sequence[str]
    objective: str
    measure: Sequence[int]
    measure_s: float
    simulate_s: float
    most: int
    seed: int
    quiet: bool
    engine: EngineOptions

    async def plan(self) -> CapacityPlan:
        """Measure, simulate and search."""
        bounds = parse_objective(self.objective)
        scenarios = self._scenarios()
        console = Console(stderr=True, quiet=self.quiet, highlight=False)
        async with self.engine.engine(quiet=self.quiet) as engine:
            found = await self._measure(engine, scenarios, bounds, console)
            model = EngineModel.of(engine)
            measured = {point.calls: point for point, _ in found}
            said = {point.calls: judged.run.turns for point, judged in found}
            all_said = tuple(turn for turns in said.values() for turn in turns)
            last = measured[max(measured)]
            simulated: dict[int, LoadPoint] = {}

            def simulate(calls: Sequence[int], duration_s: float) -> None:
                runs = [
                    SimulatedRun(
                        simulation=self._simulation(scenarios, n, duration_s),
                        costs=measured.get(n, last).costs,
                        replies=recorded_replies(said.get(n, all_said)),
                    )
                    for n in calls
                ]
                with console.status(f"{' and '.join(map(str, calls))} calls in virtual time"):
                    simulations = simulate_points(runs, bounds, model, sequences=max(*calls, *self.measure))
                for n, (point, _) in zip(calls, simulations, strict=True):
                    simulated[n] = point
                    console.print(f"simulated: {_line(point)}", soft_wrap=True)

            def is_met(calls: int) -> bool:
                """What was measured decides; beyond, what is simulated."""
                if calls in measured:
                    return measured[calls].met
                simulate([calls], self.simulate_s)
                return simulated[calls].met

            # On a thread of its own, which has an event loop in virtual time.
            await asyncio.to_thread(simulate, self.measure, self.measure_s)
            capacity, limit = await asyncio.to_thread(
                find_capacity, is_met, known=self.measure, start=max(self.measure), most=self.most
            )
        return CapacityPlan(
            profile=model.profile.name,
            objective=self.objective,
            measured=tuple(measured.values()),
            simulated=tuple(simulated[calls] for calls in sorted(simulated)),
            costs=last.costs,
            capacity=capacity,
            limited_by=limit,
        )

    def _simulation(self, scenarios: Sequence[Scenario], calls: int, duration_s: float) -> Simulation:
        return Simulation(scenarios=scenarios, calls=calls, duration_s=duration_s, seed=self.seed)

    def _scenarios(self) -> tuple[Scenario, ...]:
        if self.names:
            return find_scenarios(names_of(self.names))
        language = self.engine.settled_profile().language.partition("-")[0]
        built_in = find_scenarios(list_scenarios())
        return tuple(s for s in built_in if s.language.partition("-")[0] == language) or built_in

    async def _measure(
        self, engine: Engine, scenarios: Sequence[Scenario], bounds: Sequence[Bound], console: Console
    ) -> list[tuple[LoadPoint, JudgedRun]]:
        found = []
        for calls in self.measure:
            simulation = self._simulation(scenarios, calls, self.measure_s)
            view = LiveView(engine.clock, duration_s=self.measure_s)
            with Live(view, console=console, transient=True):
                point, judged = await measure_point(engine, simulation, bounds, watcher=view)
            console.print(f"measured: {_line(point)}", soft_wrap=True)
            found.append((point, judged))
        return found


def _numbers(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise ConfigError(f"--measure is {text!r}; allowed are whole numbers from 1, such as 1,2,4", param="measure")
    return numbers


def _write(path: Path, found: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}", param="output") from None


def _line(point: LoadPoint) -> str:
    time = point.times.get("first_speech")
    speech = (
        f"first speech p50 {time.p50:.0f} ms, p95 {time.p95:.0f} ms of {time.count} turns" if time else "no replies"
    )
    verdict = "holds" if point.met else "does not hold"
    return f"{point.calls} calls: {speech}, busy {point.utilisation:.0%}: {verdict}"


def _show(found: CapacityPlan, needs: Sequence[int]) -> None:
    out, _ = consoles()
    out.print(_points_table(found))
    if found.agreement:
        out.print(_agreement_table(found))
    if not found.capacity:
        out.print(f"Not even one call meets {found.objective} on this machine with {found.profile}.")
        return
    bound = "one more misses it" if found.limited_by == "objective" else "the search ended there (--max)"
    out.print(f"This machine holds {found.capacity} calls at {found.objective} with {found.profile}; {bound}.")
    table = Table(box=SIMPLE_HEAD)
    for heading in ("calls at once", "machines", "machines, one of which may fail"):
        table.add_column(heading, justify="right")
    for calls in needs:
        replicas = found.replicas_for(calls)
        assert replicas is not None
        table.add_row(str(calls), str(replicas.needed), str(replicas.with_spare))
    out.print(table)


def _points_table(found: CapacityPlan) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for heading in ("calls", "", "turns", "token p50", "speech p50", "speech p95", "busy", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for how, points in (("measured", found.measured), ("simulated", found.simulated)):
        for point in points:
            token, speech = (point.times.get(name) for name in ("first_token", "first_speech"))
            table.add_row(
                str(point.calls),
                how,
                str(speech.count if speech else 0),
                f"{token.p50:.0f} ms" if token else "",
                f"{speech.p50:.0f} ms" if speech else "",
                f"{speech.p95:.0f} ms" if speech else "",
                f"{point.utilisation:.0%}",
                Text("holds", "green") if point.met else Text("missed", "red"),
            )
        table.add_section()
    return table


def _agreement_table(found: CapacityPlan) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for heading in ("calls", "figure", "measured", "95 % surely", "simulated", "off", ""):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for a in found.agreement:
        low, high = a.interval_ms
        table.add_row(
            str(a.calls),
            a.figure,
            f"{a.measured_ms:.0f} ms",
            f"{low:.0f} to {high:.0f}",
            f"{a.simulated_ms:.0f} ms",
            f"{a.off:+.0%}",
            Text("agrees", "green") if a.agrees else Text("differs", "red"),
        )
    return table
