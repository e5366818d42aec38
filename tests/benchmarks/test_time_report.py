"""benchmarks.time_report: a short run on the packaged model shows where its time went."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import time_report

pytestmark = pytest.mark.model


def test_short_run_reports_openings_as_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["time_report", "--calls", "1", "--duration-s", "0.5", "--json"])
    assert time_report.main() == 0
    found = json.loads(capsys.readouterr().out)
    lines = {line["what"]: line for line in found["time"]["lines"]}
    assert lines["opening prompts"]["tokens"] > 0
    assert sum(line["share"] for line in lines.values()) == pytest.approx(1, abs=0.01)
    assert found["calls"] == 1
    assert set(found["cost_model_error"]) == {"decode", "prefill"}
