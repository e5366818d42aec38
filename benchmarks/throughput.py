"""Proofs about throughput: how close the engine comes to llama.cpp's own loop, and what scattered calls cost."""

from __future__ import annotations

import asyncio
import random
import statistics

from voice_llm import Engine
from voice_llm.runtime import Call

from .common import Proof, TalkativeBackend, engine_config, model_path, read, running_engine
from .raw_loop import RawLoop

_PROMPT = "Tell me everything that you know about insurance, in one long answer, please. " * 12
_STEPS = 64
_ROUNDS = 5


async def near_the_raw_loop() -> list[Proof]:
    """Compare with ``llama_decode`` alone, batch 8 and batch 1, in turn in one process."""
    return [await _compare(calls, bound) for calls, bound in ((8, 0.90), (1, 0.95))]


async def _compare(calls: int, bound: float) -> Proof:
    config = engine_config(sequences=calls)
    async with running_engine(config, backend_type=TalkativeBackend) as engine:
        opened = [await engine.open_call() for _ in range(calls)]
        prompt_tokens = await _warm(opened)
        raw = RawLoop(
            model_path(), sequences=calls, context_per_call=config.context_per_call, prompt_tokens=prompt_tokens
        )
        pairs = []
        for round_number in range(_ROUNDS):
            order = (_ours, _raw) if round_number % 2 else (_raw, _ours)
            rates = {measure.__name__: await measure(engine, opened, raw) for measure in order}
            pairs.append((rates["_ours"], rates["_raw"]))
        raw.close()
        stats = (await engine.stats()).batcher
    ratios = [ours / theirs for ours, theirs in pairs]
    ratio = statistics.median(ratios)
    overhead_ms = (stats.step_ms - stats.decode_ms - stats.prefill_ms) / (stats.decode_steps + stats.prefill_steps)
    return Proof(
        f"decode_{calls}",
        f"decoding {calls} call{'s' * (calls > 1)}: at least {bound:.2f} of a raw llama_decode loop",
        ratio >= bound,
        {
            "ratio": round(ratio, 3),
            "ratios": [round(r, 3) for r in ratios],
            "tokens_per_s": round(statistics.median(o for o, _ in pairs), 1),
            "raw_tokens_per_s": round(statistics.median(r for _, r in pairs), 1),
            "python_ms_a_step": round(overhead_ms, 3),
        },
    )


async def _ours(engine: Engine, calls: list[Call], raw: RawLoop) -> float:
    return await _tokens_per_s(engine, calls)


async def _raw(engine: Engine, calls: list[Call], raw: RawLoop) -> float:
    return await asyncio.to_thread(raw.tokens_per_s, _STEPS)


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
    streams = [c.generate(_messages(i), temperature=0.0, max_tokens=_STEPS + 1) for i, c in enumerate(calls)]
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
