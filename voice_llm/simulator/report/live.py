"""LiveView: calls on the phone as they go, in the terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..percentiles import percentile
from ..results import CallResult, TurnResult
from ..run import Watcher
from ..script import CallScript

__all__ = ["LiveView"]

_SHOWN_CALLS: Final = 16
_NAME_CHARS: Final = 18
_WINDOW: Final = 200
_SPARKS: Final = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class _Line:
    script: CallScript
    began_s: float
    turns: int = 0
    last: TurnResult | None = None


@dataclass
class LiveView(Watcher):
    """A watcher that a ``rich.live.Live`` shows: it is a renderable.

    Args:
        clock: The run's; monotonic seconds.
        calls: How many calls there will be; None where that is not known.
        duration_s: How long callers dial; None where that is not known.
        watcher: Is told as well.
    """

    clock: Callable[[], float]
    calls: int | None = None
    duration_s: float | None = None
    watcher: Watcher = field(default_factory=Watcher)

    def __post_init__(self) -> None:
        self._began_s = self.clock()
        self._lines: dict[str, _Line] = {}
        self._ended = self._failed = self._turns = self._gaps = 0
        self._speech_ms: deque[float] = deque(maxlen=_WINDOW)

    def dialled(self, call_id: str, script: CallScript) -> None:
        """See ``Watcher``."""
        self._lines[call_id] = _Line(script, self.clock())
        self.watcher.dialled(call_id, script)

    def turn(self, script: CallScript, turn: TurnResult) -> bool:
        """See ``Watcher``."""
        line = self._lines[turn.call_id]
        line.turns, line.last = line.turns + 1, turn
        self._turns += 1
        self._gaps += turn.gaps > 0
        if turn.first_speech_ms is not None:
            self._speech_ms.append(turn.first_speech_ms)
        return self.watcher.turn(script, turn)

    def ended(self, call: CallResult) -> None:
        """See ``Watcher``."""
        self._lines.pop(call.call_id, None)
        self._ended += 1
        self._failed += bool(call.errors)
        self.watcher.ended(call)

    def __rich__(self) -> RenderableType:
        return Group(self._header(), self._table(), self._footer())

    def _header(self) -> RenderableType:
        elapsed_s = self.clock() - self._began_s
        grid = Table.grid(padding=(0, 2))
        text = f"{len(self._lines)} on the phone, {self._ended} over" + (f" of {self.calls}" if self.calls else "")
        if self._failed:
            text += f", [red]{self._failed} failed[/]"
        total, done = (self.duration_s, elapsed_s) if self.duration_s else (self.calls, self._ended)
        bar = ProgressBar(total=total, completed=min(done, total or done), width=30)
        grid.add_row(Text.from_markup(text), bar, f"{elapsed_s:.0f} s")
        return grid

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
        table.add_column("call", no_wrap=True, min_width=_NAME_CHARS)
        table.add_column("turn", justify="right", no_wrap=True, min_width=5)
        table.add_column("first speech", justify="right", no_wrap=True, min_width=12)
        table.add_column("last words", ratio=1, no_wrap=True, overflow="ellipsis")
        for line in list(self._lines.values())[:_SHOWN_CALLS]:
            table.add_row(*self._row(line))
        hidden = len(self._lines) - _SHOWN_CALLS
        if hidden > 0:
            table.add_row(Text(f"and {hidden} more", style="dim"))
        return table

    def _row(self, line: _Line) -> tuple[RenderableType, ...]:
        name = line.script.name or "call"
        if line.last is None:
            return Text(name), f"0/{len(line.script.turns)}", "", ""
        ms = line.last.first_speech_ms
        speech = Text(f"{ms:.0f} ms" if ms is not None else "-", style="red" if line.last.gaps else "")
        return Text(name), f"{line.turns}/{len(line.script.turns)}", speech, Text(line.last.text.replace("\n", " "))

    def _footer(self) -> RenderableType:
        if not self._speech_ms:
            return Text("waiting for the first reply", style="dim")
        p50, p95 = (percentile(self._speech_ms, percent) for percent in (50, 95))
        gaps = f", gaps in {self._gaps / self._turns:.1%} of {self._turns} turns" if self._turns else ""
        return Text(f"first speech p50 {p50:.0f} ms, p95 {p95:.0f} ms{gaps}  {_sparkline(self._speech_ms)}")


def _sparkline(values: deque[float]) -> str:
    """Return the last values as a row of small bars."""
    last = list(values)[-40:]
    most = max(last) or 1.0
    return "".join(_SPARKS[min(len(_SPARKS) - 1, int(value / most * len(_SPARKS)))] for value in last)
