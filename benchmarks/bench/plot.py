"""The picture of a result: how late speech starts, by calls on the phone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from .results import Pooled, by_system, read

__all__ = ["write_plot"]

_SIZE_IN: Final = (9.0, 5.0)
_DPI: Final = 120
_MARKERS: Final = "osD^vP*X"
# Told apart by readers who do not see all colours (Okabe and Ito).
_COLOURS: Final = ("#888888", "#000000", "#e69f00", "#56b4e9", "#0072b2", "#009e73", "#cc79a7", "#d55e00")


def write_plot(result: Path, picture: Path) -> None:
    """Draw a result's first-speech p95 over the calls, a curve a system; hollow where replies had gaps or failed."""
    about, points = read(result)
    systems = by_system(points)
    figure = Figure(figsize=_SIZE_IN, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rungs = sorted({p.calls for pooled in systems.values() for p in pooled})
    # Set before anything is drawn: without a single point, scales would find no range of their own.
    axes.set_xlim(rungs[0] / 1.2, rungs[-1] * 1.2)
    axes.set_ylim(*_range_ms(systems, about["objective_ms"]))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for index, (name, pooled) in enumerate(systems.items()):
        _curve(axes, name, pooled, _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)])
    axes.axhline(about["objective_ms"], color="#aa0000", linestyle="--", linewidth=1)
    axes.annotate(
        "objective", (0.995, about["objective_ms"]), xycoords=("axes fraction", "data"), ha="right", va="bottom",
        color="#aa0000",
    )  # fmt: skip
    _label(axes, rungs)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)


def _curve(axes: Axes, name: str, pooled: list[Pooled], colour: str, marker: str) -> None:
    spoken = [(p, speech_ms) for p in pooled if (speech_ms := p.ms("first_speech_ms", 95)) is not None]
    calls, speech = [p.calls for p, _ in spoken], [value for _, value in spoken]
    axes.plot(calls, speech, color=colour, label=name, marker=marker, markersize=6)
    broken = [(p.calls, value) for p, value in spoken if not p.meets(value)]
    if broken:
        axes.plot(*zip(*broken, strict=True), color=colour, marker=marker, markersize=6, mfc="white", linestyle="none")


def _range_ms(systems: dict[str, list[Pooled]], objective_ms: float) -> tuple[float, float]:
    """Return the ends of the axis: all points and the objective lie between, also where nobody ever spoke."""
    speech = [p.ms("first_speech_ms", 95) for pooled in systems.values() for p in pooled]
    shown = [value for value in (*speech, objective_ms) if value is not None]
    return min(shown) / 1.5, max(shown) * 1.5


def _label(axes: Axes, rungs: list[int]) -> None:
    axes.set_xticks(rungs, [str(calls) for calls in rungs])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(_seconds))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("calls on the phone at once (hollow: gaps or errors in more than 1 % of the turns)")
    axes.set_ylabel("end of turn to first speech, p95")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize="small")


def _seconds(value_ms: float, position: int | None = None) -> str:
    return f"{value_ms / 1e3:g} s" if value_ms >= 1000 else f"{value_ms:g} ms"
