"""The benchmark, end to end, on the packaged model: servers, callers, result and tables."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bench.measure import prompt_tokens
from benchmarks.bench.run import CONTEXT_TOKENS
from benchmarks.bench.systems import Setup, systems_named
from benchmarks.bench.workload import Reader, Workload, check

pytestmark = pytest.mark.model


def test_short_run_of_ours_measures_turns_of_the_workload(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.bench",
        "--systems",
        "voice-llm hints",
        "--calls",
        "2",
        "--point-s",
        "6",
    ]
    command += ["--rounds", "1", "--threads", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    (point,) = result["points"]
    assert point["turns"] >= 1
    assert point["errors"] == {}
    assert len(point["first_speech_ms"]) == point["turns"]
    assert point["prompt_tokens"] > 480 * point["turns"]
    assert point["cpu_s"] > 0.05
    assert point["computed_tokens"] > 0
    assert len(point["clause_ms"]) == point["turns"]
    assert "| `voice-llm hints` |" in done.stdout
    assert out.with_suffix(".png").exists()


def test_seed_re_created_reads_the_same_prompt_as_the_others(smollm2_path: Path) -> None:
    probe = Workload().probe()
    with Reader(smollm2_path) as reader:
        expected = len(reader.first_prompt(probe))
    (system,) = systems_named(["seed"])
    with system.start(Setup(smollm2_path, 1, CONTEXT_TOKENS, threads=1)) as server:
        assert asyncio.run(prompt_tokens(system, server, probe)) == expected


@pytest.mark.parametrize("languages", [("en",), ("tr",), ("en", "tr")])
def test_workload_is_what_it_is_meant_to_be(languages: tuple[str, ...], smollm2_path: Path) -> None:
    workload = Workload(languages=languages)
    described = workload.describe(smollm2_path)
    check(described)
    words = described["turn_words"]
    assert 8 <= words["least"] <= words["most"] <= 25
    for said in ({"system_tokens": 70}, {"own_opening_tokens": {"least": 290}}):
        with pytest.raises(ValueError, match="tokens"):
            check({**described, **said})


def test_calls_of_a_point_are_the_same_for_each_system_and_other_ones_in_each_round() -> None:
    workload = Workload()
    assert workload.scripts(0, 4) == workload.scripts(0, 4)
    facts = {script.rag_context for round_ in (0, 1, 2) for script in workload.scripts(round_, 4)}
    assert len(facts) == 3 * len(workload.scripts(0, 4))
    assert [script.hang_up_after_turn for script in workload.scripts(0, 8)[:8]] == [1, 2, 3, 4, 5, 6, 1, 2]
    assert workload.probe().rag_context not in facts
