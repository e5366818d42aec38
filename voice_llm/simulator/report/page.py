"""A report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Final

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from ..metrics import SHARES, TIMES
from .compare import Change
from .lanes import draw_lanes, slowest_turns
from .model import Report
from .svg import curves, points
from .terminal import verdict

__all__ = ["render_page"]

# Times with a curve of their own, and the style of it.
_CURVES: Final = {"first_token": "first-token", "first_chunk": "first-chunk", "first_speech": "first-speech"}
_MOST_DOTS: Final = 3000


def render_page(report: Report, *, changes: Sequence[Change] = (), before: str = "") -> str:
    """Return the page.

    Args:
        report: The run.
        changes: How it compares with another.
        before: What the other is called.
    """
    lanes, shown = draw_lanes(report) if report.calls else ("", "")
    return _template().render(
        report=report,
        verdict=verdict(report),
        times=[(TIMES[name].title, figures) for name, figures in report.times.items()],
        shares=[(SHARES[name].title, share) for name, share in report.shares.items()],
        curves=Markup(_curves(report)),
        legend=[(style, TIMES[name].title) for name, style in _CURVES.items() if name in report.times],
        dots=Markup(_dots(report)),
        lanes=Markup(lanes),
        lanes_shown=shown,
        slowest=slowest_turns(report),
        missed=[
            (call, turn, verdict)
            for call in report.calls
            for turn in call.turns
            for verdict in turn.verdicts
            if verdict.outcome == "failed"
        ],
        changes=changes,
        before=before,
    )


@cache
def _template() -> Template:
    source = resources.files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )


def _curves(report: Report) -> str:
    turns = [turn for call in report.calls for turn in call.turns if turn.error is None]
    series = {
        style: values
        for name, style in _CURVES.items()
        if (values := [ms for turn in turns if (ms := getattr(turn, f"{name}_ms")) is not None])
    }
    limits = [bound.limit for bound in report.objective if bound.metric in _CURVES]
    return curves(series, label="share of the turns by latency", limits=limits) if series else ""


def _dots(report: Report) -> str:
    turns = [
        (turn.asked_s, turn.first_speech_ms, "dot gapped" if turn.gaps else "dot", f"{call.scenario}: {turn.said}")
        for call in report.calls
        for turn in call.turns
        if turn.first_speech_ms is not None
    ]
    if not turns:
        return ""
    every = -(-len(turns) // _MOST_DOTS)
    return points(turns[::every], label="first speech over the run")
