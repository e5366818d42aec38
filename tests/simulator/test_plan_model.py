"""``voice-llm plan`` and ``voice-llm groundedness`` on the packaged model, as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.model

ROOT = Path(__file__).resolve().parents[2]
SHORT = """\
name: short
system_prompt: Answer in one short sentence.
max_tokens: 24
caller: {think_s: 0.2, speaking_wpm: 300}
turns:
  - user: Hello, how are you today?
  - user: Thank you, goodbye.
"""
QUESTIONS = """\
sets:
  - language: en
    facts: [The library opens at 9 o'clock., The library is closed on Sunday.]
    questions:
      - {id: opens, kind: answerable, question: "When do you open?", answer: "9"}
      - {id: name, kind: absent, question: "What is the librarian's name?"}
      - {id: sunday, kind: contradicted, question: "You are open on Sunday, yes?", answer: "closed", claim: "yes"}
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "voice_llm.cli", *map(str, arguments), "--threads", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=120)


def test_plan_measures_simulates_and_says_how_many_machines(tmp_path: Path) -> None:
    scenario, kept = tmp_path / "short.yaml", tmp_path / "plan.json"
    scenario.write_text(SHORT)
    loose = ("--objective", "first_speech_p95<=60s", "--measure", "1,2", "--measure-s", "5", "--simulate-s", "60")
    done = run("plan", scenario, *loose, "--max", "4", "--need", "9", "--output", kept)
    assert done.returncode == 0, done.stderr
    assert "holds 4 calls" in done.stdout
    assert "3                                 4" in done.stdout, "nine calls, three machines, and one to spare"
    plan = json.loads(kept.read_text())
    assert [point["calls"] for point in plan["measured"]] == [1, 2]
    assert [point["calls"] for point in plan["simulated"]] == [1, 2, 4]
    assert plan["replicas"] == [{"calls": 9, "needed": 3, "with_spare": 4}]
    assert {a["figure"] for a in plan["agreement"]} >= {"first speech p50", "first speech p95"}

    again = run("simulate", scenario, "--target", "virtual", "--costs", kept, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["about"]["step costs"] == str(kept)


def test_plan_ends_with_4_where_not_even_one_call_meets_the_objective(tmp_path: Path) -> None:
    scenario = tmp_path / "short.yaml"
    scenario.write_text(SHORT)
    done = run("plan", scenario, "--objective", "first_speech_p95<=1ms", "--measure", "1", "--measure-s", "5")
    assert done.returncode == 4, done.stderr
    assert "Not even one call" in done.stdout


def test_groundedness_counts_and_gates_on_what_is_invented(tmp_path: Path, smollm2_path: Path) -> None:
    questions, kept = tmp_path / "questions.yaml", tmp_path / "replies.json"
    questions.write_text(QUESTIONS)
    done = run("groundedness", "--questions", questions, "--model", smollm2_path, "--output", kept)
    assert done.returncode == 0, done.stderr
    report = json.loads(kept.read_text())
    assert report["questions"] == 3
    assert sum(report["shares"].values()) == pytest.approx(1.0)
    assert [answer["id"] for answer in report["answers"]] == ["opens", "name", "sunday"]
    assert all(answer["text"].strip() for answer in report["answers"])

    strict = run("groundedness", "--questions", questions, "--max-invented", "0", "--json")
    invented = json.loads(strict.stdout)["shares"]["invented"]
    assert strict.returncode == (4 if invented else 0)
