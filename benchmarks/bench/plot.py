"""The picture of a result: how late speech starts, by calls on the phone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .points import Pooled, by_system
from .results import read

__all__ = ["write_plot"]

_SIZE_IN: Final = (9.0, 5.0)
_DPI: Final = 120
_SIZE_PT: Final = 7
_FEW_ROUNDS_SIZE_PT: Final = 5
_MARKERS: Final = "osD^vP*X"
# Told apart by readers who do not see all colours (Okabe and Ito).
_COLOURS: Final = ("#888888", "#000000", "#e69f00", "#56b4e9", "#0072b2", "#009e73", "#cc79a7", "#d55e00")


def write_plot(result: Path, picture: Path) -> None:
    """Draw a result's first-speech p95 over the calls with its 95 % interval, a curve a system.

    Points are hollow where replies had gaps or failed, and small where not all rounds were measured.
    """
    about, points = read(result)
    systems = by_system(points, about["systems"])
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
    figure.legend(loc="outside right upper", fontsize="small")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)


def _curve(axes: Axes, name: str, pooled: list[Pooled], colour: str, marker: str) -> None:
    spoken = [(p, speech_ms) for p in pooled if (speech_ms := p.ms("first_speech_ms", 95)) is not None]
    most = max(len(p.points) for p in pooled)
    axes.plot([p.calls for p, _ in spoken], [ms for _, ms in spoken], color=colour, linewidth=1.5)
    for p, speech_ms in spoken:
        low, high = p.speech_interval or (speech_ms, speech_ms)
        axes.plot([p.calls, p.calls], [low, high], color=colour, linewidth=1, alpha=0.6)
        size = _SIZE_PT if len(p.points) == most else _FEW_ROUNDS_SIZE_PT
        face = colour if p.is_smooth else "white"
        axes.plot([p.calls], [speech_ms], color=colour, marker=marker, markersize=size, mfc=face, linestyle="none")
    axes.plot([], [], color=colour, marker=marker, markersize=_SIZE_PT, label=name)


def _range_ms(systems: dict[str, list[Pooled]], objective_ms: float) -> tuple[float, float]:
    """Return the ends of the axis: all points and the objective lie between, also where nobody ever spoke."""
    speech = [p.ms("first_speech_ms", 95) for pooled in systems.values() for p in pooled]
    shown = [value for value in (*speech, objective_ms) if value is not None]
    return min(shown) / 1.5, max(shown) * 1.5


def _label(axes: Axes, rungs: list[int]) -> None:
    axes.set_xticks(rungs, [str(calls) for calls in rungs])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(_seconds))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(
        "calls on the phone at once\n"
        "(hollow: gaps or errors in more than 1 % of the turns; small: not measured in all rounds; bars: 95 % interval)"
    )
    axes.set_ylabel("end of turn to first speech, p95")
    axes.grid(visible=True, which="major", alpha=0.3)


def _seconds(value_ms: float, position: int | None = None) -> str:
    return f"{value_ms / 1e3:g} s" if value_ms >= 1000 else f"{value_ms:g} ms"
