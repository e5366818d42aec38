"""One run of ``voice-llm simulate``: read what is needed, let callers call, show and write what came."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.live import Live
from rich.text import Text

from ..errors import ConfigError
from ..simulator.arrivals import parse_arrivals
from ..simulator.judged import JudgedRun
from ..simulator.objective import check_objective, parse_objective
from ..simulator.report import (
    Change,
    LiveView,
    Report,
    build_report,
    compare,
    comparison_table,
    read_report,
    render_page,
    render_report,
)
from ..simulator.run import Watcher
from ..simulator.scenario import LoadedScenario, Scenario, find_scenarios, list_scenarios
from ..simulator.simulation import Simulation
from ..testing import run_in_virtual_time
from .client import consoles, print_json
from .exit_codes import ExitCode
from .simulate_target import Called, TargetOptions

__all__ = ["SimulateRun", "names_of"]

_ALL: Final = "all"
_LIVE_PER_S: Final = 4
_VIRTUAL_NOTE: Final = "virtual time: replies are written down before, so that expectations say nothing of a model"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateRun:
    """What the command line asks for."""

    names: Sequence[str]
    calls: int
    duration_s: float | None
    arrivals: str | None
    speed: float
    seed: int
    objective: str | None
    folder: Path | None
    compare_with: Path | None
    as_json: bool
    target: TargetOptions

    def run(self) -> ExitCode:
        """Do it all.

        Raises:
            VoiceLLMError: Something is wrong before the first call: a scenario, an option, a file, the profile.
        """
        simulation = self._simulation()
        bounds = parse_objective(self.objective or "")
        before = read_report(self.compare_with) if self.compare_with is not None else None
        if self.folder is not None:
            _make_folder(self.folder)
        loop = run_in_virtual_time if self.target.is_virtual else asyncio.run
        judged, about = loop(self._run(simulation))
        report = build_report(
            judged,
            title=f"Calls: {', '.join(self.names)}",
            about=self._about() | about,
            objective=check_objective(bounds, judged),
            notes=tuple(_notes(simulation, self.target, speed=self.speed)),
        )
        changes = compare(before, report) if before is not None else ()
        self._write(report, changes)
        self._show(report, changes)
        return _exit_code(report)

    def _simulation(self) -> Simulation:
        return Simulation(
            scenarios=find_scenarios(names_of(self.names)),
            calls=self.calls,
            duration_s=self.duration_s,
            arrivals=parse_arrivals(self.arrivals) if self.arrivals is not None else None,
            # In virtual time persons need not hurry.
            speed=1.0 if self.target.is_virtual else self.speed,
            seed=self.seed,
        )

    async def _run(self, simulation: Simulation) -> tuple[JudgedRun, dict[str, str]]:
        quiet = self.as_json or not consoles()[1].is_terminal
        async with self.target.open(quiet=quiet) as called:
            with self._watching(simulation, called, quiet=quiet) as watcher:
                judged = await simulation.run(
                    called.target, run_id=called.run_id, clock=called.clock, sleep=called.sleep, watcher=watcher
                )
        return judged, called.about

    @contextmanager
    def _watching(self, simulation: Simulation, called: Called, *, quiet: bool) -> Iterator[Watcher]:
        if quiet:
            yield Watcher()
            return
        speed = simulation.speed
        duration_s = None if simulation.duration_s is None else simulation.duration_s / speed
        view = LiveView(called.clock, calls=simulation.total_calls, duration_s=duration_s)
        with Live(view, console=consoles()[1], refresh_per_second=_LIVE_PER_S, transient=True):
            yield view

    def _about(self) -> dict[str, str]:
        arrivals = self.arrivals or f"{self.calls} at once"
        duration = "" if self.duration_s is None else f", for {self.duration_s:g} s"
        return {
            "scenarios": ", ".join(self.names),
            "callers": f"{arrivals}{duration}, seed {self.seed}"
            + (f", speed {self.speed:g}" if self.speed != 1 and not self.target.is_virtual else ""),
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            "version": importlib.metadata.version("pipecat-voice-llm"),
        }

    def _write(self, report: Report, changes: Sequence[Change]) -> None:
        if self.folder is None:
            return
        before = str(self.compare_with) if self.compare_with is not None else ""
        try:
            (self.folder / "report.json").write_text(report.to_json(), encoding="utf-8")
            page = render_page(report, changes=changes, before=before)
            (self.folder / "report.html").write_text(page, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"the report cannot be written: {error}", param="report") from None

    def _show(self, report: Report, changes: Sequence[Change]) -> None:
        if self.as_json:
            summary = report.model_dump(mode="json", exclude={"calls"}, exclude_defaults=True)
            print_json(summary | {"objective_met": report.objective_met})
            return
        out, _ = consoles()
        if changes:
            out.print(comparison_table(changes, before=str(self.compare_with)))
        for part in render_report(report):
            out.print(part)
        if self.folder is not None:
            out.print(Text(f"report: {self.folder / 'report.html'}, {self.folder / 'report.json'}"))


def names_of(names: Sequence[str]) -> list[str]:
    """Return what ``find_scenarios`` takes; ``all`` stands for those that are built in.

    Raises:
        ConfigError: There is none.
    """
    if not names:
        raise ConfigError(
            f"which scenario? give a file, a folder, or one of: {', '.join([_ALL, *list_scenarios()])}",
            param="scenarios",
        )
    return [each for name in names for each in (list_scenarios() if name == _ALL else [name])]


def _notes(simulation: Simulation, target: TargetOptions, *, speed: float) -> Iterator[str]:
    if target.is_virtual:
        yield _VIRTUAL_NOTE
    elif speed != 1:
        yield f"persons were {speed:g} times as fast as people are: latencies and gaps are not what people would meet"
    for scenario in simulation.scenarios:
        yield from (f"{scenario.name}: {note}" for note in _notes_of(scenario))


def _notes_of(scenario: Scenario) -> tuple[str, ...]:
    return scenario.notes if isinstance(scenario, LoadedScenario) else ()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--report cannot be written to: {error}", param="report") from None


def _exit_code(report: Report) -> ExitCode:
    if report.errors or report.expectations_failed:
        return ExitCode.FAILED
    return ExitCode.DONE if report.objective_met else ExitCode.OBJECTIVE_MISSED
