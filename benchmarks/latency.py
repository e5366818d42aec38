"""Proof about latency: what prefill before the turn is worth."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from .common import PROFILE, Proof

_FACTS = Path(__file__).parent.parent / "pipelines" / "demo" / "insurance_context.txt"
_SAY = (
    "When is the phone desk open?",
    "A pipe burst in my kitchen. What is the deductible for water damage?",
    "And how fast is the money paid after that?",
)
_PAIRS = 5


async def opening_prompt() -> list[Proof]:
    """Run ``voice-llm call --json`` with and without early prefill, in turn."""
    warm, cold = [], []
    for _ in range(_PAIRS):
        warm.append(await _call_by_command())
        cold.append(await _call_by_command("--no-prefill"))
    later_ms = [turn["timings"]["first_token_ms"] for turns in warm for turn in turns["turn_end"][1:]]
    cold_ms = [turns["turn_end"][0]["timings"]["first_token_ms"] for turns in cold]
    ratio = statistics.median(later_ms) / statistics.median(cold_ms)
    reused = all(_reuses_all(turns["turn_end"]) for turns in warm)
    last = warm[-1]
    return [
        Proof(
            "first_token",
            "first token from the second turn on: at most a third of a first turn without early prefill, "
            "and all but 2 tokens of the turn before are reused",
            ratio <= 1 / 3 and reused,
            {
                "ratio": round(ratio, 3),
                "first_token_ms": round(statistics.median(later_ms), 1),
                "first_token_cold_ms": round(statistics.median(cold_ms), 1),
                "ready_ms": round(statistics.median(turns["ready"][0]["prefill_ms"] for turns in warm), 1),
                "opening_prompt_tokens": last["ready"][0]["usage"]["prompt_tokens"],
                "usage_by_turn": [turn["usage"] for turn in last["turn_end"]],
            },
        )
    ]


async def _call_by_command(*options: str) -> dict[str, list[dict[str, Any]]]:
    command = [sys.executable, "-m", "voice_llm.cli", "call", "--profile", PROFILE, "--json", "--temperature", "0"]
    command += ["--rag-context", f"@{_FACTS}", "--kv", "split", *options]
    for text in _SAY:
        command += ["--say", text]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    events: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        event = json.loads(line)
        events.setdefault(event["type"], []).append(event)
    return events


def _reuses_all(turns: list[dict[str, Any]]) -> bool:
    usages = [turn["usage"] for turn in turns]
    return all(
        after["cached_tokens"] >= before["prompt_tokens"] + before["completion_tokens"] - 2
        for before, after in pairwise(usages)
    )
