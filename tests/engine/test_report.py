"""TimeReport: where the time went, largest first."""

from __future__ import annotations

import copy
import json

import pytest
from rich.console import Console

from voice_llm.engine import BatcherCounters
from voice_llm.engine.counters import PromptKind, Work
from voice_llm.engine.report import TimeReport

pytestmark = pytest.mark.unit


@pytest.fixture
def report() -> TimeReport:
    before = BatcherCounters(decode_steps=10, decode_rows=10, decode_micro_batches=10, decode_ms=100.0, step_ms=150.0)
    before.decode_by_rows[1] = Work(10, 10, 100.0)
    after = copy.copy(before)
    after.decode_by_rows |= {1: Work(20, 20, 210.0), 4: Work(50, 200, 1334.0)}
    after.decode_steps, after.decode_rows, after.decode_micro_batches, after.decode_ms = 70, 220, 85, 1544.0
    after.prompts[PromptKind.OPENING] = Work(8, 600, 4000.0)
    after.prefill_ms, after.sample_ms, after.copies_ms, after.step_ms = 4000.0, 56.0, 10.5, 5670.0
    return TimeReport.between(before, after, 10.0)


def test_lines_name_what_was_done_in_between_largest_first_and_add_up(report: TimeReport) -> None:
    assert [(line.what, round(line.ms, 6)) for line in report.lines] == [
        ("idle, and between steps", 4480.0),
        ("opening prompts", 4000.0),
        ("decode of 4 rows", 1234.0 + 100.0),
        ("decode of 1 row", 110.0),
        ("sampling and text", 56.0),
        ("state copies", 10.5),
        ("planning", 9.5),
    ]
    assert sum(line.ms for line in report.lines) == pytest.approx(report.wall_ms)
    assert sum(line.share for line in report.lines) == pytest.approx(1)
    assert report.rows_a_step == pytest.approx(210 / 60)
    assert report.micro_batches_a_step == pytest.approx(75 / 60)


def test_json_holds_every_line(report: TimeReport) -> None:
    found = json.loads(json.dumps(report.to_json()))
    assert [line["what"] for line in found["lines"]] == [line.what for line in report.lines]
    assert found["lines"][2] == {"what": "decode of 4 rows", "ms": 1334.0, "share": 0.1334, "steps": 50, "tokens": 200}


def test_table_shows_time_share_steps_and_tokens(report: TimeReport) -> None:
    console = Console(width=100)
    with console.capture() as shown:
        console.print(report.to_table())
    rows = {" ".join(line.split()) for line in shown.get().splitlines()}
    assert "decode of 4 rows 1,334 13.3% 50 200 26.7" in rows
    assert "sampling and text 56 0.6%" in rows
    assert "wall 10,000" in rows
    assert "3.50 rows and 1.25 micro-batches a decode step" in rows


def test_nothing_done_in_no_time_is_an_empty_report() -> None:
    report = TimeReport.between(BatcherCounters(), BatcherCounters(), 0.0)
    assert (report.lines, report.rows_a_step) == ((), 0)
