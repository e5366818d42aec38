"""Proofs about throughput: how close the engine comes to llama.cpp's own loop, and what scattered calls cost."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys

from voice_llm import Engine
from voice_llm.config import SamplingParams
from voice_llm.runtime import Call

from .common import Proof, TalkativeBackend, engine_config, read, running_engine

_PROMPT = "Tell me everything that you know about insurance, in one long answer, please. " * 12
_STEPS = 128
_ROUNDS = 7


async def near_the_raw_loop() -> list[Proof]:
    """Compare with ``llama_decode`` alone, at batch 8 and 1; in turn, each time in a process of its own.

    Two contexts in one process would fight: the threads of the one that rests spin on the cores of the other.
    """
    return [await asyncio.to_thread(_compare, calls, bound) for calls, bound in ((8, 0.90), (1, 0.95))]


def _compare(calls: int, bound: float) -> Proof:
    pairs: list[tuple[dict[str, float], float]] = []
    for _ in range(_ROUNDS):
        ours = json.loads(_run("benchmarks.throughput", "--calls", str(calls)))
        raw_options = ("--sequences", str(calls), "--prompt-tokens", str(ours["prompt_tokens"]), "--steps", str(_STEPS))
        pairs.append((ours, float(_run("benchmarks.raw_loop", *raw_options))))
    ratios = [ours["tokens_per_s"] / raw for ours, raw in pairs]
    ratio = statistics.median(ratios)
    return Proof(
        f"decode_{calls}",
        f"decoding {calls} call{'s' * (calls > 1)}: at least {bound:.2f} of a raw llama_decode loop",
        ratio >= bound,
        {
            "ratio": round(ratio, 3),
            "ratios": [round(r, 3) for r in ratios],
            "tokens_per_s": round(statistics.median(ours["tokens_per_s"] for ours, _ in pairs), 1),
            "raw_tokens_per_s": round(statistics.median(raw for _, raw in pairs), 1),
            "python_ms_a_step": round(statistics.median(ours["python_ms_a_step"] for ours, _ in pairs), 3),
        },
    )


def _run(module: str, *options: str) -> str:
    done = subprocess.run([sys.executable, "-m", module, *options], capture_output=True, text=True, check=True)
    return done.stdout


async def _measure(calls: int) -> dict[str, float]:
    """Let so many calls talk at once and return the rate, and what Python takes of a step."""
    async with running_engine(engine_config(sequences=calls), backend_type=TalkativeBackend) as engine:
        opened = [await engine.open_call() for _ in range(calls)]
        prompt_tokens = await _warm(opened)
        before = (await engine.stats()).batcher
        rate = await _tokens_per_s(engine, opened)
        after = (await engine.stats()).batcher
    native_ms = after.decode_ms + after.prefill_ms - before.decode_ms - before.prefill_ms
    steps = after.decode_steps + after.prefill_steps - before.decode_steps - before.prefill_steps
    python_ms = (after.step_ms - before.step_ms - native_ms) / steps
    return {"tokens_per_s": rate, "prompt_tokens": prompt_tokens, "python_ms_a_step": python_ms}


async def scattered_calls() -> list[Proof]:
    """Let 8 of 16 calls talk: first those on ids 0 to 7, then random ones."""
    async with running_engine(engine_config(sequences=16), backend_type=TalkativeBackend) as engine:
        calls = [await engine.open_call() for _ in range(16)]
        await _warm(calls)
        chance = random.Random(7)
        adjacent, scattered, rows = [], [], []
        for _ in range(_ROUNDS):
            adjacent.append(await _tokens_per_s(engine, _on_ids(calls, range(8))))
            before = (await engine.stats()).batcher
            scattered.append(await _tokens_per_s(engine, _on_ids(calls, chance.sample(range(16), 8))))
            after = (await engine.stats()).batcher
            steps = after.decode_steps - before.decode_steps
            rows.append((after.decode_micro_batches - before.decode_micro_batches) / steps)
        rehomed = (await engine.stats()).batcher.rehomed
    ratio = statistics.median(s / a for s, a in zip(scattered, adjacent, strict=True))
    return [
        Proof(
            "scattered_calls",
            "8 talkers on random ids of 16: at least 0.80 of 8 on adjacent ids",
            ratio >= 0.8,
            {
                "ratio": round(ratio, 3),
                "tokens_per_s": round(statistics.median(scattered), 1),
                "adjacent_tokens_per_s": round(statistics.median(adjacent), 1),
                "micro_batches_a_step": round(statistics.median(rows), 2),
                "rehomed": rehomed,
            },
        )
    ]


def _on_ids(calls: list[Call], ids: range | list[int]) -> list[Call]:
    """Return the calls whose KV lies on these sequence ids now."""
    at = {call._live.sequence.id: call for call in calls if call._live.sequence is not None}
    return [at[i] for i in ids]


async def _warm(calls: list[Call]) -> int:
    """Prefill every call's prompt; returns its length in tokens."""
    for index, call in enumerate(calls):
        done = await call.prefill(_messages(index))
    return done.usage.prompt_tokens


async def _tokens_per_s(engine: Engine, calls: list[Call]) -> float:
    """Let all calls talk at once, and count while all of them do: prompts and ends are left out."""
    sampling = SamplingParams(temperature=0.0, max_tokens=_STEPS + 1, pacing="off")
    streams = [c.generate(_messages(i), sampling) for i, c in enumerate(calls)]
    for stream in streams:
        await anext(stream)
    started_s, rows_before = engine.clock(), (await engine.stats()).batcher.decode_rows
    reading = [asyncio.ensure_future(read(stream)) for stream in streams]
    await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
    ended_s, rows_after = engine.clock(), (await engine.stats()).batcher.decode_rows
    await asyncio.gather(*reading)
    return (rows_after - rows_before) / (ended_s - started_s)


def _messages(index: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Call {index}. {_PROMPT}"}]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the engine's decoding once and print it as JSON.")
    parser.add_argument("--calls", type=int, required=True)
    print(json.dumps(asyncio.run(_measure(parser.parse_args().calls))))
