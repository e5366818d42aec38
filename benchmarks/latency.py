"""Proofs about latency: what prefill before the turn is worth, and that a long prompt delays nobody's speech."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from voice_llm import Finished
from voice_llm.backend import Sampler
from voice_llm.runtime import Call

from .common import PROFILE, Proof, TalkativeBackend, engine_config, running_engine

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


async def long_prompt_beside_talkers() -> list[Proof]:
    """Four calls talk; then a prompt of 4,000 tokens arrives."""
    config = engine_config(sequences=6, context_per_call=8192)
    async with running_engine(config, backend_type=TimedBackend) as engine:
        calls = [await engine.open_call() for _ in range(5)]
        talking = [asyncio.ensure_future(_talk(call)) for call in calls[:4]]
        await asyncio.sleep(2.0)
        talkers = [call._turns[-1].sampler for call in calls[:4]]
        arrival_s = engine.clock()
        words = " ".join(f"fact {i} is {i * 7}" for i in range(400))
        stream = calls[4].generate([{"role": "user", "content": words}], temperature=0.0, max_tokens=8)
        prompt_tokens = 0
        async for event in stream:
            if isinstance(event, Finished):
                prompt_tokens = event.usage.prompt_tokens
        done_s = engine.clock()
        await asyncio.gather(*talking)
        steps = (await engine.stats()).batcher
        backend = engine.backend
        drawn = backend.drawn_s if isinstance(backend, TimedBackend) else {}
    gaps_ms = [
        (after - before) * 1e3
        for sampler in talkers
        for before, after in pairwise(drawn[sampler])
        if after >= arrival_s and before <= done_s
    ]
    bound_ms = 2 * config.max_step_ms
    return [
        Proof(
            "long_prompt",
            "a prompt of 4,000 tokens never holds one of 4 talking calls for longer than two bounded steps",
            prompt_tokens >= 4000 and max(gaps_ms) <= bound_ms,
            {
                "prompt_tokens": prompt_tokens,
                "longest_gap_ms": round(max(gaps_ms), 1),
                "median_gap_ms": round(statistics.median(gaps_ms), 1),
                "bound_ms": bound_ms,
                "longest_step_ms": round(steps.longest_step_ms, 1),
                "prefill_s": round(done_s - arrival_s, 2),
            },
        )
    ]


async def _talk(call: Call) -> None:
    """Talk at length."""
    messages = [{"role": "user", "content": "Tell me a very long story about a lighthouse."}]
    async for _ in call.generate(messages, temperature=0.0, max_tokens=900):
        pass


class TimedBackend(TalkativeBackend):
    """Notes when each token is drawn; text leaves later, with the word that it belongs to."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.drawn_s: dict[Sampler, list[float]] = {}

    def sample(self, entry_index: int, sampler: Sampler) -> int:
        """See ``Backend``."""
        token = super().sample(entry_index, sampler)
        self.drawn_s.setdefault(sampler, []).append(time.monotonic())
        return token
