"""Charts as SVG text, drawn by hand so that a page needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

__all__ = ["Canvas", "curves", "points", "ticks"]

_LEFT: Final = 46
_BOTTOM: Final = 34
_TOP: Final = 12
_RIGHT: Final = 14


@dataclass
class Canvas:
    """Shapes of one picture. Colours are classes of the page's style sheet.

    Attributes:
        width: In pixels.
        height: In pixels.
        label: What is shown, for those who do not see it.
    """

    width: float
    height: float
    label: str
    _shapes: list[str] = field(default_factory=list)

    def rect(self, x: float, y: float, width: float, height: float, style: str, tip: str = "") -> None:
        """Draw a bar; ``tip`` shows when the mouse is over it."""
        box = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.8):.1f}" height="{height:.1f}"'
        self._shapes.append(f'<rect {box} class="{style}">{_tip(tip)}</rect>')

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """Draw a line."""
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self._shapes.append(f'<line {ends} class="{style}"/>')

    def path(self, corners: Iterable[tuple[float, float]], style: str) -> None:
        """Draw a line with corners."""
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        self._shapes.append(f'<polyline points="{text}" class="{style}"/>')

    def dot(self, x: float, y: float, style: str, tip: str = "") -> None:
        """Draw a dot."""
        self._shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" class="{style}">{_tip(tip)}</circle>')

    def text(self, x: float, y: float, text: str, style: str = "label", anchor: str = "start") -> None:
        """Write a text."""
        self._shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def __str__(self) -> str:
        size = f'viewBox="0 0 {self.width:.0f} {self.height:.0f}" width="{self.width:.0f}" height="{self.height:.0f}"'
        return f'<svg {size} role="img" aria-label="{escape(self.label)}">{"".join(self._shapes)}</svg>'


def curves(series: Mapping[str, Sequence[float]], *, label: str, limits: Iterable[float] = ()) -> str:
    """Draw which share of the values is at most so large, a curve a series; limits are drawn as upright lines.

    Args:
        series: Values in milliseconds by the style of their curve; none is empty.
        label: What is shown.
        limits: In milliseconds.
    """
    canvas = Canvas(620, 300, label)
    most = max([*(max(values) for values in series.values()), *limits]) or 1.0
    x_of, y_of = _axes(canvas, most, 1.0, "ms", percent=True)
    for limit in limits:
        canvas.line(x_of(limit), y_of(0), x_of(limit), y_of(1), "limit")
    for style, values in series.items():
        ordered = sorted(values)
        corners = [(x_of(ordered[0]), y_of(0))]
        for number, value in enumerate(ordered, 1):
            corners += [(x_of(value), corners[-1][1]), (x_of(value), y_of(number / len(ordered)))]
        canvas.path(corners, f"curve {style}")
    return str(canvas)


def points(values: Sequence[tuple[float, float, str, str]], *, label: str) -> str:
    """Draw dots of (seconds, milliseconds, style, what to tell of it)."""
    canvas = Canvas(620, 300, label)
    most_s = max(value[0] for value in values) or 1.0
    most_ms = max(value[1] for value in values) or 1.0
    x_of, y_of = _axes(canvas, most_s, most_ms, "s", y_unit="ms")
    for x, y, style, tip in values:
        canvas.dot(x_of(x), y_of(y), style, tip)
    return str(canvas)


def ticks(most: float, wanted: int = 6) -> Iterator[float]:
    """Yield round numbers from 0 to ``most``."""
    raw = most / wanted
    power = 10.0 ** len(str(int(raw))) / 10 if raw >= 1 else 0.1
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    value = 0.0
    while value <= most * 1.0001:
        yield value
        value += step


class _Scale:
    def __init__(self, most: float, start: float, end: float) -> None:
        self._most, self._start, self._end = most, start, end

    def __call__(self, value: float) -> float:
        return self._start + (self._end - self._start) * value / self._most


def _axes(
    canvas: Canvas, most_x: float, most_y: float, x_unit: str, *, y_unit: str = "", percent: bool = False
) -> tuple[_Scale, _Scale]:
    x_of = _Scale(most_x, _LEFT, canvas.width - _RIGHT)
    y_of = _Scale(most_y, canvas.height - _BOTTOM, _TOP)
    for x in ticks(most_x):
        canvas.line(x_of(x), y_of(0), x_of(x), y_of(most_y), "grid")
        canvas.text(x_of(x), canvas.height - 16, f"{x:g}", anchor="middle")
    for y in (0, 0.25, 0.5, 0.75, 0.95, 1.0) if percent else ticks(most_y):
        canvas.line(_LEFT, y_of(y), canvas.width - _RIGHT, y_of(y), "grid")
        canvas.text(_LEFT - 6, y_of(y) + 4, f"{y:.0%}" if percent else f"{y:g}", anchor="end")
    canvas.text(canvas.width - _RIGHT, canvas.height - 3, x_unit, anchor="end")
    canvas.text(4, _TOP, y_unit)
    return x_of, y_of


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
