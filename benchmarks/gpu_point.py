"""One point on a GPU: so many callers on the phone with an engine in this process, and where its time goes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import llama_cpp

from voice_llm import Engine, Profile, SamplingParams
from voice_llm.backend.llama import LlamaModel
from voice_llm.backend.llama.tuning import settle
from voice_llm.config import EngineConfig
from voice_llm.config.engine import KVLayout
from voice_llm.engine import BatcherCounters
from voice_llm.engine.counters import Work
from voice_llm.engine.report import TimeReport
from voice_llm.simulator import EngineTarget, Percentiles, TurnResult, run_calls

from .bench.workload import MAX_TOKENS, Workload
from .common import PROFILE
from .gpu_backend import PhoneBackend

__all__ = ["LAYOUTS", "Point", "Setup", "machine", "measure"]

LAYOUTS: Final[tuple[KVLayout, ...]] = ("split", "unified")
# Opening prompts take tens of milliseconds on a GPU; dialling all at once would still be nobody's day.
_RAMP_S_A_CALL: Final = 0.25
_SETTLE_S: Final = 5.0
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Setup:
    """What all points share.

    Attributes:
        window_s: How long turns count, once the callers have dialled.
        context_tokens: What a call can hold.
        gpu_layers: Layers on the accelerator; -1 for all.
        threads: CPU threads; None for as many as are best.
    """

    window_s: float
    context_tokens: int = 2048
    gpu_layers: int = -1
    threads: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What so many callers heard, and what the machine did meanwhile. Turns asked for within the window count.

    Attributes:
        layout: How the KV cache was laid out.
        calls: Callers on the phone at once.
        chosen: What "auto" takes for so many calls: layout, flash attention, threads.
        config: The engine's configuration.
        window_s: How long the window was.
        turns: Turns that were answered.
        errors: Turns and calls that went wrong.
        first_token_ms: From the end of a turn to the first text, at the caller's edge; percentiles.
        first_speech_ms: To the first speech, likewise.
        turns_with_gaps: Replies that fell silent in the middle.
        gap_s: How long, together.
        tokens_per_s: Tokens of replies that were decoded.
        prompt_tokens_per_s: Prompt tokens that were computed.
        steps: By the rows of a step of single tokens: how many there were, and their mean time in milliseconds.
        prefill_ms_per_token: Mean time of a prompt token.
        time: Where the time went, as ``TimeReport`` writes it.
        memory: In MiB, with all calls on the phone: ``gpu`` of the whole GPU where there is one, ``host`` of the
            process.
    """

    layout: str
    calls: int
    chosen: dict[str, Any]
    config: dict[str, Any]
    window_s: float
    turns: int
    errors: int
    first_token_ms: dict[str, float] | None
    first_speech_ms: dict[str, float] | None
    turns_with_gaps: int
    gap_s: float
    tokens_per_s: float
    prompt_tokens_per_s: float
    steps: dict[str, dict[str, float]]
    prefill_ms_per_token: float | None
    time: dict[str, Any]
    memory: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Window:
    """The engine's counters when the window opened and when it closed, and the memory then."""

    opened_s: float
    closed_s: float
    before: BatcherCounters
    after: BatcherCounters
    memory: dict[str, float]


async def measure(model: LlamaModel, setup: Setup, layout: KVLayout, calls: int) -> Point:
    """Let ``calls`` persons talk to an engine with room for just as many, and return what was found."""
    asked = EngineConfig(
        sequences=calls,
        context_per_call=setup.context_tokens,
        gpu_layers=setup.gpu_layers,
        admission="limit",  # what a call too many does to the others is what is asked
    ).replace(threads=setup.threads, threads_batch=setup.threads)
    chosen = await asyncio.to_thread(settle, model, asked)
    config = await asyncio.to_thread(settle, model, asked.replace(kv_layout=layout))
    profile = Profile.load(PROFILE).model_copy(update={"system_prompt": "", "engine": config})
    ramp_s = min(_RAMP_S_A_CALL * calls, setup.window_s / 2)
    opens_s = ramp_s + min(_SETTLE_S, setup.window_s / 5)
    async with await Engine.start(PhoneBackend(model, config), profile) as engine:
        began_s = time.monotonic()
        watching = asyncio.create_task(_watch(engine, began_s + opens_s, began_s + opens_s + setup.window_s))
        run = await run_calls(
            EngineTarget(engine, sampling=SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS)),
            Workload().scripts(0, calls),
            concurrent=calls,
            duration_s=opens_s + setup.window_s,
            ramp_s=ramp_s,
        )
        window = await watching
    answered = [t for t in run.turns if t.error is None and window.opened_s <= t.asked_s < window.closed_s]
    return _point(layout, config, chosen, window, answered, len(run.errors))


async def _watch(engine: Engine, opens_s: float, closes_s: float) -> _Window:
    await asyncio.sleep(opens_s - time.monotonic())
    before, opened_s = (await engine.stats()).batcher, time.monotonic()
    await asyncio.sleep(closes_s - time.monotonic())
    after, closed_s = (await engine.stats()).batcher, time.monotonic()
    return _Window(opened_s, closed_s, before, after, await asyncio.to_thread(_memory_mib))


def _point(
    layout: str, config: EngineConfig, chosen: EngineConfig, window: _Window, turns: list[TurnResult], errors: int
) -> Point:
    before, after = window.before, window.after
    window_s = window.closed_s - window.opened_s
    prompt_tokens = after.prefill_tokens - before.prefill_tokens
    prefill_ms = after.prefill_ms - before.prefill_ms
    return Point(
        layout=layout,
        calls=config.sequences,
        chosen={name: getattr(chosen, name) for name in ("kv_layout", "flash_attention", "threads", "threads_batch")},
        config=dataclasses.asdict(config),
        window_s=round(window_s, 1),
        turns=len(turns),
        errors=errors,
        first_token_ms=_percentiles([turn.first_token_ms for turn in turns]),
        first_speech_ms=_percentiles([turn.first_speech_ms for turn in turns]),
        turns_with_gaps=sum(turn.gaps > 0 for turn in turns),
        gap_s=round(sum(turn.gap_s for turn in turns), 2),
        tokens_per_s=round((after.decode_rows - before.decode_rows) / window_s, 1),
        prompt_tokens_per_s=round(prompt_tokens / window_s, 1),
        steps=_steps(before, after),
        prefill_ms_per_token=round(prefill_ms / prompt_tokens, 4) if prompt_tokens else None,
        time=TimeReport.between(before, after, window_s).to_json(),
        memory=window.memory,
    )


def _steps(before: BatcherCounters, after: BatcherCounters) -> dict[str, dict[str, float]]:
    steps = {}
    for rows, work in sorted(after.decode_by_rows.items()):
        done = work.since(before.decode_by_rows.get(rows, Work()))
        if done.steps:
            steps[str(rows)] = {"steps": done.steps, "ms": round(done.ms / done.steps, 3)}
    return steps


def _percentiles(values: list[float | None]) -> dict[str, float] | None:
    found = Percentiles.of(values)
    return {name: round(value, 1) for name, value in dataclasses.asdict(found).items()} if found else None


def _memory_mib() -> dict[str, float]:
    memory = {}
    used = _nvidia_smi("memory.used")
    if used is not None:
        memory["gpu"] = float(used)
    with contextlib.suppress(OSError):  # Linux only
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory["host"] = round(pages * os.sysconf("SC_PAGE_SIZE") / _MIB, 1)
    return memory


def machine() -> dict[str, Any]:
    """Describe where and with what the figures are made."""
    cpu = "unknown"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {
        "gpu": _nvidia_smi("name"),
        "driver": _nvidia_smi("driver_version"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "llama_cpp_python": llama_cpp.__version__,
    }


def _nvidia_smi(field: str) -> str | None:
    """Ask for a value of the first GPU; None where there is none."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip() or None
