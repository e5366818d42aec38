"""Measure calls on a GPU, split against unified KV: ``python -m benchmarks.gpu --model MODEL.gguf --out FILE.json``.

Simulated insurance callers talk in real time to an engine in the same process, one process a layout, a fresh engine for
each number of calls. Replies are greedy, of a fixed length, and spoken from a script, so that random weights will do.
It runs on a CPU as well.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import datetime
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from voice_llm.backend.llama import LlamaModel

from .common import model_path
from .gpu_page import PAGE, write_page
from .gpu_point import LAYOUTS, Point, Setup, machine, measure

_CALLS: Final = (1, 8, 32, 64, 128)
_CALLS_FAILED: Final = 4


def main() -> int:
    """Measure what the arguments say; returns the exit status: 4 where a call went wrong."""
    args = _arguments()
    results = [_read(path) for path in args.read] if args.read else _measured(args)
    if args.write:
        write_page(results)
    return _CALLS_FAILED if any(point["errors"] for result in results for point in result["points"]) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a GGUF file; the packaged small model by default")
    parser.add_argument("--calls", type=int, nargs="+", default=_CALLS, help="callers at once, one point each")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS, help="KV layouts (both)")
    parser.add_argument("--window-s", type=float, default=60.0, help="how long turns count (%(default)s)")
    parser.add_argument("--context", type=int, default=2048, help="tokens that a call can hold (%(default)s)")
    parser.add_argument("--gpu-layers", type=int, default=-1, help="layers on the GPU; all by default, 0 for none")
    parser.add_argument("--threads", type=int, help="CPU threads; as many as are best by default")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file, after each point")
    parser.add_argument("--read", type=Path, nargs="+", help="measure nothing; take the results of these files")
    parser.add_argument("--write", action="store_true", help=f"write the tables to {PAGE.parent.name}/{PAGE.name}")
    args = parser.parse_args()
    if not args.read and not args.out:
        parser.error("say where the results go: --out FILE")
    return args


def _measured(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the layouts: one in this process, several in a process each, whose results are joined."""
    if len(args.layouts) == 1:
        return [asyncio.run(_measure(args, args.layouts[0]))]
    parts = []
    for layout in args.layouts:
        part = args.out.with_suffix(f".{layout}.json")
        done = subprocess.run([sys.executable, "-m", "benchmarks.gpu", *_options(args, layout, part)], check=False)
        if done.returncode not in (0, _CALLS_FAILED):
            raise SystemExit(done.returncode)
        parts.append(_read(part))
        part.unlink()
    joined = {**parts[0], "points": [point for part in parts for point in part["points"]]}
    _save(args.out, joined)
    return [joined]


def _options(args: argparse.Namespace, layout: str, out: Path) -> list[str]:
    model = ["--model", str(args.model)] if args.model else []
    numbers = {"--window-s": args.window_s, "--context": args.context, "--gpu-layers": args.gpu_layers}
    if args.threads:
        numbers["--threads"] = args.threads
    options = [text for name, value in numbers.items() for text in (name, str(value))]
    return [*model, *options, "--calls", *map(str, args.calls), "--layouts", layout, "--out", str(out)]


async def _measure(args: argparse.Namespace, layout: Any) -> dict[str, Any]:
    setup = Setup(args.window_s, args.context, args.gpu_layers, args.threads)
    model = LlamaModel(args.model or model_path(), gpu_layers=args.gpu_layers)
    points: list[Point] = []
    try:
        for calls in args.calls:
            points.append(await measure(model, setup, layout, calls))
            print(_line(points[-1]), flush=True)
            results = _results(args, model.path.name, points)
            _save(args.out, results)
    finally:
        model.close()
    return results


def _results(args: argparse.Namespace, model: str, points: Sequence[Point]) -> dict[str, Any]:
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "model": model,
        "window_s": args.window_s,
        "points": [dataclasses.asdict(point) for point in points],
    }


def _line(point: Point) -> str:
    speech = point.first_speech_ms
    heard = f"first speech p95 {speech['p95']:.0f} ms" if speech else "nothing heard"
    return f"{point.layout}, {point.calls} calls: {point.turns} turns, {heard}, {point.tokens_per_s:.0f} tokens/s"


def _read(path: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def _save(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
