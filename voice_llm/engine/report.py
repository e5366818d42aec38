"""TimeReport: where the machine's time went between two readings of the counters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .counters import BatcherCounters, PromptKind, Work

__all__ = ["TimeLine", "TimeReport"]

_PROMPTS: Final = {
    PromptKind.OPENING: "opening prompts",
    PromptKind.TURN: "prompts of later turns",
    PromptKind.HINT: "hints",
}


@dataclass(frozen=True, slots=True)
class TimeLine:
    """One thing that time went into.

    Attributes:
        what: In words.
        ms: How much.
        share: Of the whole wall time, 0 to 1.
        steps: Steps that had a part in it; None where they are not counted.
        tokens: Tokens decoded, likewise.
    """

    what: str
    ms: float
    share: float
    steps: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class TimeReport:
    """Where the time went, largest first; the lines add up to the wall time.

    Attributes:
        wall_ms: The whole time.
        lines: What it went into.
        rows_a_step: Mean rows of single-token steps.
        micro_batches_a_step: Mean micro-batches that they were made of.
    """

    wall_ms: float
    lines: tuple[TimeLine, ...]
    rows_a_step: float
    micro_batches_a_step: float

    @classmethod
    def between(cls, before: BatcherCounters, after: BatcherCounters, wall_s: float) -> TimeReport:
        """Compare two snapshots of the same counters that were taken ``wall_s`` seconds apart."""
        wall_ms = wall_s * 1e3
        busy_ms = after.step_ms - before.step_ms
        parts = [*_parts(before, after), ("idle, and between steps", Work(ms=max(0.0, wall_ms - busy_ms)))]
        lines = [
            TimeLine(what, work.ms, work.ms / wall_ms if wall_ms else 0.0, work.steps or None, work.tokens or None)
            for what, work in parts
            if work.ms > 0
        ]
        steps = max(1, after.decode_steps - before.decode_steps)
        return cls(
            wall_ms,
            tuple(sorted(lines, key=lambda line: -line.ms)),
            (after.decode_rows - before.decode_rows) / steps,
            (after.decode_micro_batches - before.decode_micro_batches) / steps,
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as ``json.dumps`` takes it."""
        return asdict(self)

    def to_table(self) -> Table:
        """Return it for a terminal."""
        table = Table(
            box=SIMPLE_HEAD,
            caption=f"{self.rows_a_step:.2f} rows and {self.micro_batches_a_step:.2f} micro-batches a decode step",
            caption_justify="left",
        )
        table.add_column("where the time went")
        for heading in ("ms", "share", "steps", "tokens", "ms a step"):
            table.add_column(heading, justify="right")
        for line in self.lines:
            table.add_row(
                line.what,
                f"{line.ms:,.0f}",
                f"{line.share:.1%}",
                _count(line.steps),
                _count(line.tokens),
                f"{line.ms / line.steps:.1f}" if line.steps else "",
            )
        table.add_section()
        table.add_row("wall", f"{self.wall_ms:,.0f}")
        return table


def _parts(before: BatcherCounters, after: BatcherCounters) -> Iterator[tuple[str, Work]]:
    for kind, what in _PROMPTS.items():
        yield what, after.prompts[kind].since(before.prompts[kind])
    for rows, work in after.decode_by_rows.items():
        yield f"decode of {rows} row{'s' * (rows > 1)}", work.since(before.decode_by_rows.get(rows, Work()))
    yield "sampling and text", Work(ms=after.sample_ms - before.sample_ms)
    yield "state copies", Work(ms=after.copies_ms - before.copies_ms)
    yield "planning", Work(ms=after.planning_ms - before.planning_ms)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
