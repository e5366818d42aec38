"""How much of a decode step is Python: planning, filling the batch, sampling and applying, beside ``llama_decode``.

``python -m benchmarks.python_share --help`` shows the options; the proof runs it in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from voice_llm import Engine
from voice_llm.backend.llama.library import api
from voice_llm.config import SamplingParams
from voice_llm.engine import DynamicBatcher
from voice_llm.engine.scheduler import Plan, Scheduler
from voice_llm.runtime import Call

from .common import Proof, TalkativeBackend, engine_config, read, running_engine

CALLS: Final = 8
BOUNDS: Final = {"quiet": 0.05, "busy": 0.10}
BUSY_MS: Final = 3.0
_STEPS: Final = 96
_ROUNDS: Final = 3
_PYTHON: Final = ("plan", "fill", "sample", "rest")
_PARTS: Final = (*_PYTHON, "native", "native_cpu")
_LOOPS: Final = {
    "quiet": "on a quiet event loop",
    "busy": f"beside an event loop that runs callbacks of {BUSY_MS:.0f} ms for half of the time",
}
# Without a grammar or penalties, as phone calls are mostly answered.
_SAMPLING: Final[dict[str, dict[str, Any]]] = {"greedy": {"temperature": 0.0}, "sampled": {"temperature": 0.7}}


async def python_share() -> list[Proof]:
    """Prove the bounds with eight talking calls, greedy and sampled, on a quiet and on a busy event loop."""
    command = [sys.executable, "-m", "benchmarks.python_share", "--json"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    return judge(json.loads(done.stdout))


def judge(found: list[dict[str, Any]]) -> list[Proof]:
    """Hold what was measured against the bounds: the largest share of each kind of event loop counts."""
    return [
        Proof(
            f"python_share_{loop}",
            f"the Python part of a step with {CALLS} calls talking is at most {bound:.0%} of it, {_LOOPS[loop]}",
            max(run["share"] for run in found if run["loop"] == loop) <= bound,
            {run["sampling"]: run for run in found if run["loop"] == loop},
        )
        for loop, bound in BOUNDS.items()
    ]


class StepClock:
    """Times the parts of every step in which all calls talk, by wrapping what a step calls.

    ``llama_decode`` is over for us when the engine's thread has the GIL again, so ``native`` holds that wait too.
    ``native_cpu`` is what the thread itself worked of it; the rest is that wait, and waits for cores and other threads.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._parts: dict[str, float] = {}
        self._rows = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Wrap the calls for as long as the block runs."""
        wrapped: list[tuple[Any, str, str]] = [
            (Scheduler, "plan", "plan"),
            (TalkativeBackend, "decode", "decode"),
            (TalkativeBackend, "sample", "sample"),
            (api, "llama_decode", "native"),
            (api, "llama_synchronize", "native"),
            (DynamicBatcher, "step", "step"),
        ]
        own = [(owner, name, vars(owner).get(name)) for owner, name, _ in wrapped]
        for owner, name, part in wrapped:
            setattr(owner, name, self._timed(getattr(owner, name), part))
        try:
            yield
        finally:
            for owner, name, original in own:
                if original is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, original)

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            result = None
            started_s, started_cpu_s = time.perf_counter(), time.thread_time()
            try:
                result = function(*args, **options)
                return result
            finally:
                self._add(part, time.perf_counter() - started_s)
                if part == "native":
                    self._add("native_cpu", time.thread_time() - started_cpu_s)
                if isinstance(result, Plan):
                    self._rows = len(result.decode)
                if part == "step":
                    self._step_over()

        return timed

    def _add(self, part: str, took_s: float) -> None:
        self._parts[part] = self._parts.get(part, 0.0) + took_s * 1e3

    def _step_over(self) -> None:
        parts, rows = self._parts, self._rows
        self._parts, self._rows = {}, 0
        if rows != CALLS or "native" not in parts:
            return  # a prompt's step, one in which not all of them talk, or one that failed
        step = {name: parts.get(name, 0.0) for name in ("step", "plan", "native", "native_cpu", "sample")}
        step["fill"] = parts["decode"] - step["native"]
        step["rest"] = step["step"] - step["plan"] - parts["decode"] - step["sample"]
        self.steps.append(step)


async def measure(rounds: int, steps: int) -> list[dict[str, Any]]:
    """Let all calls talk again and again, in turn on a quiet and on a busy event loop.

    Args:
        rounds: How often each combination is measured.
        steps: Tokens of each reply.

    Returns:
        For each combination a step's parts in milliseconds, and Python's share of the whole; see ``summary``.
    """
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    # Whatever a machine under load makes of the step's time, all calls stay in it.
    config = engine_config(sequences=CALLS, max_step_ms=10_000)
    async with running_engine(config, backend_type=TalkativeBackend) as engine:
        calls = [await engine.open_call() for _ in range(CALLS)]
        await _talk(engine, calls, 2, {"temperature": 0.0})
        for _ in range(rounds):
            for sampling, options in _SAMPLING.items():
                for loop in BOUNDS:
                    clock = StepClock()
                    with clock.watching():
                        await _talk(engine, calls, steps, options, busy=loop == "busy")
                    found.setdefault((sampling, loop), []).extend(clock.steps)
    return [{"sampling": s, "loop": loop, **summary(steps)} for (s, loop), steps in found.items()]


def summary(steps: list[dict[str, float]]) -> dict[str, Any]:
    """Bring steps together: means of Python's parts, and the median of the native one.

    A native call that waited for a core would make Python's share look small, so it does not count as typical.
    ``share_at_most`` counts all waiting within native calls as Python's, as if all of it were for the GIL.

    Raises:
        RuntimeError: There are none.
    """
    if not steps:
        raise RuntimeError(f"in no step did all {CALLS} calls talk; let them say more (--steps)")
    parts = {name: statistics.fmean(step[name] for step in steps) for name in _PYTHON}
    native_ms, native_cpu_ms = (statistics.median(step[name] for step in steps) for name in ("native", "native_cpu"))
    step_ms = sum(parts.values()) + native_ms
    parts |= {"step": step_ms, "native": native_ms, "native_cpu": native_cpu_ms}
    return {
        "share": round(1 - native_ms / step_ms, 4),
        "share_at_most": round(1 - native_cpu_ms / step_ms, 4),
        "steps": len(steps),
        **{f"{name}_ms": round(ms, 3) for name, ms in parts.items()},
    }


async def _talk(engine: Engine, calls: list[Call], steps: int, options: dict[str, Any], *, busy: bool = False) -> None:
    sampling = SamplingParams(max_tokens=steps, pacing="off", **options)
    streams = [call.generate(_messages(i), sampling) for i, call in enumerate(calls)]
    reading = [asyncio.ensure_future(read(stream)) for stream in streams]
    disturbing = asyncio.ensure_future(_keep_busy()) if busy else None
    await asyncio.gather(*reading)
    if disturbing is not None:
        disturbing.cancel()
        with suppress(asyncio.CancelledError):
            await disturbing


async def _keep_busy() -> None:
    while True:
        until_s = time.thread_time() + BUSY_MS / 1e3
        while time.thread_time() < until_s:
            pass
        await asyncio.sleep(BUSY_MS / 1e3)


def _messages(index: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Call {index}. Tell me everything about insurance, in one long answer."}]


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table(
        "sampling", "event loop", "Python", "at most", "step", *_PARTS, title=f"A step of {CALLS} talking calls, in ms"
    )
    for run in found:
        times = [f"{run[f'{name}_ms']:.2f}" for name in ("step", *_PARTS)]
        table.add_row(run["sampling"], run["loop"], f"{run['share']:.1%}", f"{run['share_at_most']:.1%}", *times)
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.python_share", description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="how often each combination runs (%(default)s)")
    parser.add_argument("--steps", type=int, default=_STEPS, help="tokens of each reply (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    options = parser.parse_args()
    found = asyncio.run(measure(options.rounds, options.steps))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    if options.json:
        print(json.dumps(found))
    else:
        Console().print(_table(found))


if __name__ == "__main__":
    main()
