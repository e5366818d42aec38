"""A report for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..metrics import SHARES, TIMES
from .compare import Change
from .model import CallReport, Report, TurnReport

__all__ = ["comparison_table", "render_report", "verdict"]

_SHOWN_FAILURES = 12
_COLOURS = {"better": "green", "worse": "red", "same": "dim", "": ""}


def render_report(report: Report) -> Iterator[RenderableType]:
    """Yield the report's parts, those first that are long, and the verdict last."""
    if report.scenarios:
        yield _scenario_table(report)
    failures = list(_failures(report))
    if failures:
        yield _failure_table(failures)
    yield _time_table(report)
    yield _share_table(report)
    if report.errors:
        yield _error_table(report)
    for note in report.notes:
        yield Text(f"note: {note}", style="dim")
    if report.objective:
        yield _objective_table(report)
    yield Text(verdict(report), style="bold green" if _is_good(report) else "bold red")


def comparison_table(changes: Sequence[Change], *, before: str) -> Table:
    """Return two runs side by side."""
    table = Table(box=SIMPLE_HEAD, title=Text(f"compared with {before}"), title_justify="left")
    for heading in ("", "before", "now", "difference", ""):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for change in changes:
        style = _COLOURS[change.verdict]
        table.add_row(change.name, change.before, change.now, change.difference, change.verdict, style=style)
    return table


def verdict(report: Report) -> str:
    """Say in a line how the run did."""
    calls, turns = len(report.calls), sum(len(call.turns) for call in report.calls)
    parts = [f"{calls} call{'s' * (calls != 1)}, {turns} turn{'s' * (turns != 1)} in {report.wall_s:.1f} s"]
    if report.errors:
        failures = sum(report.errors.values())
        parts.append(f"{failures} failure{'s' * (failures != 1)}")
    if report.scenarios:
        missed = report.expectations_failed
        if missed:
            parts.append(f"{missed} expectation{'s' * (missed != 1)} missed")
        elif not report.errors:
            parts.append("all expectations met")
    if report.objective:
        parts.append("objective met" if report.objective_met else "objective missed")
    return ", ".join(parts)


def _is_good(report: Report) -> bool:
    return report.objective_met and not report.expectations_failed and not report.errors


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _scenario_table(report: Report) -> Table:
    table = _table("scenario", "calls", "turns", "met", "missed", "better model", "unjudged")
    for s in report.scenarios:
        better = f"{s.better_model_passed} of {s.better_model_passed + s.better_model_failed}"
        table.add_row(
            s.name,
            str(s.calls),
            str(s.turns),
            str(s.passed),
            Text(str(s.failed), style="red" if s.failed else ""),
            better,
            str(s.not_judged) if s.not_judged else "",
        )
    return table


def _failures(report: Report) -> Iterator[tuple[CallReport, TurnReport, str, str]]:
    for call in report.calls:
        for turn in call.turns:
            for v in turn.verdicts:
                if v.gates and v.outcome == "failed":
                    yield call, turn, v.expected, v.found


def _failure_table(failures: list[tuple[CallReport, TurnReport, str, str]]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for heading in ("missed", "turn", "expected", "found"):
        table.add_column(heading, overflow="fold")
    for call, turn, expected, found in failures[:_SHOWN_FAILURES]:
        # What callers and models say is data: never markup.
        table.add_row(*(Text(part) for part in (call.scenario, f"{turn.turn + 1}: {turn.said}", expected, found)))
    if len(failures) > _SHOWN_FAILURES:
        table.add_row(f"and {len(failures) - _SHOWN_FAILURES} more")
    return table


def _time_table(report: Report) -> Table:
    table = _table("time", "turns", "p50", "p95", "p99", "most")
    for name, time in TIMES.items():
        if (f := report.times.get(name)) is not None:
            table.add_row(time.title, str(f.count), *(f"{ms:,.0f} ms" for ms in (f.p50, f.p95, f.p99, f.max)))
    return table


def _share_table(report: Report) -> Table:
    table = _table("share", "")
    for name, share in SHARES.items():
        if (value := report.shares.get(name)) is not None:
            table.add_row(share.title, f"{value:.1%}")
    return table


def _error_table(report: Report) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("failure", overflow="fold")
    table.add_column("times", justify="right")
    errors = list(report.errors.items())
    for error, count in errors[:_SHOWN_FAILURES]:
        table.add_row(Text(error, style="red"), str(count))
    if len(errors) > _SHOWN_FAILURES:
        table.add_row(f"and {len(errors) - _SHOWN_FAILURES} more")
    return table


def _objective_table(report: Report) -> Table:
    table = _table("objective", "found", "")
    for bound in report.objective:
        table.add_row(bound.text, bound.found, Text("met", "green") if bound.met else Text("missed", "red"))
    return table
