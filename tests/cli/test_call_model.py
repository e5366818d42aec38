"""``voice-llm call`` with the packaged model, as a script runs it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.model

ROOT = Path(__file__).resolve().parents[2]


def run_call(*arguments: str) -> list[dict[str, Any]]:
    options = ["--profile", "smollm2_135m_demo", "--kv", "split", "--threads", "2", "--temperature", "0", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "voice_llm.cli", "call", *options, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_insurance_call_computes_each_text_once(smollm2_path: Path) -> None:
    """From the second turn on, all of the turn before is in the cache: its prompt and the reply as it was sampled."""
    facts = f"@{ROOT / 'pipelines' / 'demo' / 'insurance_context.txt'}"
    questions = ["Hello?", "Is water damage covered?", "And bicycles?"]
    events = run_call("--max-tokens", "24", "--rag-context", facts, *(f"--say={q}" for q in questions))
    types = [e["type"] for e in events]
    assert types[0] == "ready"
    assert types[-1] == "ended"
    assert types.count("turn_end") == len(questions)
    assert set(types[1:-1]) == {"chunk", "turn_end"}

    ready, *ends = [e["usage"] for e in events if e["type"] in ("ready", "turn_end")]
    assert ready["prompt_tokens"] > 300
    assert ends[0]["cached_tokens"] >= ready["prompt_tokens"] - 2
    for before, after in itertools.pairwise(ends):
        assert after["cached_tokens"] >= before["prompt_tokens"] + before["completion_tokens"] - 2

    for end in (e for e in events if e["type"] == "turn_end"):
        chunks = [e for e in events if e["type"] == "chunk" and e["turn_id"] == end["turn_id"]]
        assert "".join(c["text"] for c in chunks).strip()
        assert [c["index"] for c in chunks] == list(range(len(chunks)))
        assert 0 < end["timings"]["first_token_ms"] <= end["timings"]["total_ms"]
    assert events[-1]["turns"] == len(questions)
    assert events[-1]["usage"]["completion_tokens"] == sum(end["completion_tokens"] for end in ends)
