"""Swim lanes: each call a row, and in it who speaks, who waits and when tokens come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .model import CallReport, Report, TurnReport
from .svg import Canvas, ticks

__all__ = ["draw_lanes", "slowest_turns"]

_ROW: Final = 26
_NAMES: Final = 190
_AXIS: Final = 26
_WIDTH: Final = 1180
_WINDOW_S: Final = 120.0
_MOST_ROWS: Final = 40


def draw_lanes(report: Report) -> tuple[str, str]:
    """Draw the calls of two minutes around the turn that was slowest to be heard.

    Returns:
        The picture, and in words what part of the run it shows.
    """
    begin_s, end_s = _window(report)
    calls = [call for call in report.calls if call.started_s < end_s and call.ended_s > begin_s]
    shown = calls[:_MOST_ROWS]
    canvas = Canvas(_NAMES + _WIDTH, _AXIS + _ROW * len(shown) + 8, "who speaks when, call by call")
    lanes = _Lanes(canvas, begin_s, end_s)
    lanes.axis(len(shown))
    for row, call in enumerate(shown):
        lanes.call(row, call)
    span = f"{begin_s:.0f} to {end_s:.0f} s"
    return str(canvas), f"{len(shown)} of {len(report.calls)} calls, {span} of {report.wall_s:.0f} s"


def _window(report: Report) -> tuple[float, float]:
    if report.wall_s <= _WINDOW_S:
        return 0.0, max(report.wall_s, 1.0)
    turns = [turn for call in report.calls for turn in call.turns if turn.first_speech_ms is not None]
    slowest = max(turns, key=lambda turn: turn.first_speech_ms or 0.0, default=None)
    middle_s = slowest.asked_s if slowest is not None else 0.0
    begin_s = min(max(0.0, middle_s - _WINDOW_S / 2), report.wall_s - _WINDOW_S)
    return begin_s, begin_s + _WINDOW_S


class _Lanes:
    def __init__(self, canvas: Canvas, begin_s: float, end_s: float) -> None:
        self._canvas = canvas
        self._begin_s, self._end_s = begin_s, end_s

    def axis(self, rows: int) -> None:
        for second in ticks(self._end_s - self._begin_s, 12):
            x = self._x(self._begin_s + second)
            self._canvas.line(x, _AXIS - 4, x, _AXIS + rows * _ROW, "grid")
            self._canvas.text(x, _AXIS - 9, f"{self._begin_s + second:.0f} s", anchor="middle")

    def call(self, row: int, call: CallReport) -> None:
        y = _AXIS + row * _ROW
        name = call.scenario or call.call_id
        self._canvas.text(4, y + 15, name if len(name) <= 28 else f"{name[:27]}…")
        self._bar(call.started_s, call.ended_s, y + 12, 1, "line", f"{call.call_id}: {call.error or 'on the phone'}")
        for turn in call.turns:
            self._turn(y, turn)

    def _turn(self, y: float, turn: TurnReport) -> None:
        asked_s = turn.asked_s
        said = f"turn {turn.turn + 1}, caller: {turn.said}"
        if turn.spoke_s is not None and turn.said:
            self._bar(turn.spoke_s, asked_s, y + 5, 12, "caller", said)
        if turn.error is not None:
            self._bar(asked_s, asked_s + turn.total_ms / 1e3, y + 5, 12, "failed", turn.error)
            return
        tokens_s = asked_s + (turn.first_token_ms or 0.0) / 1e3
        replied_s = asked_s + turn.total_ms / 1e3
        if turn.first_token_ms is not None:
            self._bar(
                asked_s, tokens_s, y + 5, 12, "prefill", f"{said}\nfirst token after {turn.first_token_ms:.0f} ms"
            )
            self._bar(tokens_s, replied_s, y + 19, 3, "tokens", f"tokens of the reply until {turn.total_ms:.0f} ms")
        if turn.first_speech_ms is not None and turn.heard_until_s is not None:
            speech_s = asked_s + turn.first_speech_ms / 1e3
            self._bar(tokens_s, speech_s, y + 5, 12, "waiting", f"first speech after {turn.first_speech_ms:.0f} ms")
            gaps = f"\n{turn.gaps} silences inside, {turn.gap_ms:.0f} ms" if turn.gaps else ""
            style = "playback gapped" if turn.gaps else "playback"
            self._bar(speech_s, turn.heard_until_s, y + 5, 12, style, f"assistant: {turn.text}{gaps}")
        if turn.stopped_ms is not None:
            self._bar(
                replied_s,
                replied_s + 0.15,
                y + 2,
                18,
                "barge",
                f"the caller breaks in; stopped in {turn.stopped_ms:.0f} ms",
            )

    def _bar(self, from_s: float, to_s: float, y: float, height: float, style: str, tip: str) -> None:
        from_s, to_s = max(from_s, self._begin_s), min(to_s, self._end_s)
        if to_s > from_s:
            self._canvas.rect(self._x(from_s), y, self._x(to_s) - self._x(from_s), height, style, tip)

    def _x(self, second: float) -> float:
        return _NAMES + (second - self._begin_s) / (self._end_s - self._begin_s) * (_WIDTH - 20)


def slowest_turns(report: Report, most: int = 12) -> Sequence[tuple[CallReport, TurnReport]]:
    """Return the turns that were slowest to be heard, slowest first."""
    turns = [(call, turn) for call in report.calls for turn in call.turns if turn.first_speech_ms is not None]
    return sorted(turns, key=lambda pair: -(pair[1].first_speech_ms or 0.0))[:most]
