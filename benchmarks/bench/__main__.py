"""How many phone calls each system holds on this machine and model: ``make bench``.

Virtual callers hold the same calls with each system in turn, in rounds, up a ladder of calls on the phone at once. An
interrupt keeps what was measured, and --resume goes on with it. Run it on a machine that does nothing else; the whole
takes hours.

Examples:
  make bench ARGS="--systems llama-server-best 'voice-llm hints' --calls 8 12 16 --rounds 1 --out try.json"
  make bench ARGS=--resume
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from voice_llm.errors import VoiceLLMError

from ..common import THREADS
from ..peer import PeerError, clean_up_on_sigterm
from .display import Display
from .ladder import Plan
from .measure import BenchError
from .plot import write_plot
from .points import Point
from .results import write
from .run import Run
from .sittings import ResumeError, describe, held, resume
from .systems import SYSTEMS, systems_named
from .tables import DOCS, PICTURE, RESULTS, readme_block, write_docs
from .weights import WEIGHTS, bench_model
from .workload import Workload

_CALLS: Final = (2, 4, 6, 8, 12, 16, 24, 32)
_STOP_OBJECTIVES: Final = 4
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        plan = _plan(args)
        before = _before(args)
        model = bench_model(args.weights)
        about = describe(plan, model)
        if before is not None:
            about = resume(before[0], about)
    except (ValueError, RuntimeError, ResumeError) as error:
        parser.error(str(error))
    clean_up_on_sigterm()
    run = Run(plan, model, () if before is None else before[1])
    return _run(plan, run, about, args.out, Console(stderr=True))


def _plan(args: argparse.Namespace) -> Plan:
    if args.full and args.stop_ms is not None:
        raise ValueError("--stop-ms has no effect with --full")
    return Plan(
        systems=systems_named(args.systems),
        calls=tuple(args.calls),
        rounds=args.rounds,
        point_s=args.point_s,
        objective_ms=args.objective_ms,
        stop_ms=_STOP_OBJECTIVES * args.objective_ms if args.stop_ms is None else args.stop_ms,
        threads=args.threads,
        full=args.full,
        workload=Workload(languages=tuple(args.languages)),
    )


def _before(args: argparse.Namespace) -> tuple[dict[str, Any], list[Point]] | None:
    """Return the result to go on with, if that is wanted.

    Raises:
        ResumeError: There is none, or there is one and nothing is said of what becomes of it.
    """
    out: Path = args.out
    if not out.parent.is_dir():
        raise ResumeError(f"--out: there is no folder {out.parent}")
    if args.overwrite:
        return None
    found = held(out)
    if args.resume and found is None:
        raise ResumeError(f"--resume: {out} holds no points")
    if found is not None and not args.resume:
        raise ResumeError(f"{out} holds {len(found[1])} points: --resume goes on with them, --overwrite begins anew")
    return found


def _run(plan: Plan, run: Run, about: dict[str, Any], out: Path, console: Console) -> int:
    status = 0
    with Display(plan, run.ladder, console) as display:

        def keep(point: Point) -> None:
            write(out, about, run.points)
            display.done(point)

        try:
            run.go(on_start=display.start, on_point=keep)
        except KeyboardInterrupt:
            console.print("Interrupted; what was measured is kept, and --resume goes on with it.")
            status = _INTERRUPTED
        except (BenchError, PeerError, RuntimeError, VoiceLLMError) as error:
            console.print(str(error), style="red", markup=False, highlight=False)
            status = 1
    if run.points:
        # Also where nothing was left to measure: how it was made may be told anew.
        write(out, about, run.points)
        _report(out, console)
    return status


def _report(out: Path, console: Console) -> None:
    """Show the result and, where it is the one that is committed, put it into the documents."""
    committed = out.resolve() == RESULTS
    print(readme_block(out))
    write_plot(out, DOCS / PICTURE if committed else out.with_suffix(".png"))
    if committed and not write_docs():
        console.print("README.md has no <!-- bench --> markers: its table is not written.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [system.name for system in SYSTEMS]
    parser.add_argument(
        "--systems", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {', '.join(names)}; all"
    )
    parser.add_argument("--calls", nargs="+", type=int, default=_CALLS, metavar="N", help="the ladder; 2 to 32")
    parser.add_argument("--point-s", type=float, default=100.0, metavar="S", help="how long a point is measured; 100")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each point is measured; 3")
    parser.add_argument(
        "--objective-ms", type=float, default=1000.0, metavar="MS", help="first speech, p95, that is to be met; 1000"
    )
    parser.add_argument(
        "--stop-ms",
        type=float,
        metavar="MS",
        help="a system whose first speech, p95, is later than this at two numbers of calls in a row is not measured "
        "further in a round, nor one with broken replies in a tenth of the turns; 4 times the objective",
    )
    parser.add_argument("--threads", type=int, default=THREADS, metavar="N", help="of each server; the machine's cores")
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        default=WEIGHTS[0],
        help=f"type of the model's weights, for all systems; {WEIGHTS[0]}, for which llama.cpp has fast kernels",
    )
    parser.add_argument(
        "--languages", nargs="+", choices=["en", "tr"], default=["en"], help="what callers speak, in turns; en"
    )
    parser.add_argument("--full", action="store_true", help="measure all numbers of calls, whatever is found")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="FILE", help=f"JSON file of the result; {RESULTS.name}"
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the points that the file holds")
    again.add_argument("--overwrite", action="store_true", help="begin anew where the file holds points")
    return parser


if __name__ == "__main__":
    sys.exit(main())
