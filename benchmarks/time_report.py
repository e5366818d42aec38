"""Show where the machine's time goes while callers are on the phone: ``python -m benchmarks.time_report``.

Simulated insurance callers talk to the packaged model in this process. Opening the first calls is part of the run.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from typing import Any

from rich.console import Console

from voice_llm.config import SamplingParams
from voice_llm.engine.report import TimeReport
from voice_llm.runtime import EngineStats
from voice_llm.simulator import EngineTarget, RunResult, make_scripts, run_calls

from .common import engine_config, machine, running_engine

_REPLY_TOKENS = 48
_SEED = 5
# Nobody gets through a call in less.
_SHORTEST_CALL_S = 5.0


async def measure(*, calls: int, duration_s: float) -> tuple[TimeReport, RunResult, EngineStats]:
    """Let so many callers phone for so long; returns where the time went, what callers heard and the last totals."""
    async with running_engine(engine_config(sequences=calls)) as engine:
        target = EngineTarget(engine, sampling=SamplingParams(temperature=0.0, max_tokens=_REPLY_TOKENS))
        scripts = make_scripts(_SEED, calls * (1 + int(duration_s / _SHORTEST_CALL_S)))
        before = (await engine.stats()).batcher
        run = await run_calls(
            target, itertools.cycle(scripts), concurrent=calls, duration_s=duration_s, ramp_s=min(10.0, duration_s / 4)
        )
        after = await engine.stats()
    return TimeReport.between(before, after.batcher, run.wall_s), run, after


def main() -> int:
    """Run it and print the table, or JSON; returns the exit status: 4 where a call went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_report", description=__doc__)
    parser.add_argument("--calls", type=int, default=8, help="callers on the phone at once")
    parser.add_argument("--duration-s", type=float, default=60.0, help="how long they phone, in seconds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    report, run, stats = asyncio.run(measure(calls=args.calls, duration_s=args.duration_s))
    if args.json:
        print(json.dumps(_to_json(report, run, stats), indent=1))
    else:
        _show(report, run, stats)
    return 4 if run.errors else 0


def _to_json(report: TimeReport, run: RunResult, stats: EngineStats) -> dict[str, Any]:
    return {
        "machine": machine(),
        "calls": run.concurrent,
        "time": report.to_json(),
        "cost_model_error": {"decode": stats.decode_error, "prefill": stats.prefill_error},
        "summary": run.to_json()["summary"],
    }


def _show(report: TimeReport, run: RunResult, stats: EngineStats) -> None:
    console = Console()
    console.print(f"{run.concurrent} callers, {len(run.turns)} turns, {len(run.errors)} errors", highlight=False)
    console.print(report.to_table())
    console.print(
        f"cost model off by {stats.decode_error:.0%} (decode), {stats.prefill_error:.0%} (prefill)", highlight=False
    )


if __name__ == "__main__":
    raise SystemExit(main())
