"""How many phone calls each system holds on this machine and model: ``make bench``.

Virtual callers hold the same calls with each system in turn, in rounds, up a ladder of calls on the phone at once. An
interrupt keeps what was measured. Run it on a machine that does nothing else; the whole takes hours.

Example: make bench ARGS="--systems llama-server-best 'voice-llm hints' --calls 8 12 16 --rounds 1 --out try.json"
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from voice_llm.errors import VoiceLLMError

from ..common import THREADS, machine, model_path
from ..peer import PeerError, clean_up_on_sigterm
from .display import Display
from .measure import BenchError
from .plot import write_plot
from .results import Point, write
from .run import CONTEXT_TOKENS, Plan, Planned, Run
from .systems import SYSTEMS, systems_named
from .tables import DOCS, PICTURE, RESULTS, readme_block, write_docs
from .workload import Workload, check

_CALLS: Final = (2, 4, 6, 8, 12, 16, 24, 32)
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        plan = Plan(
            systems=systems_named(args.systems),
            calls=tuple(args.calls),
            rounds=args.rounds,
            point_s=args.point_s,
            objective_ms=args.objective_ms,
            threads=args.threads,
            full=args.full,
            workload=Workload(languages=tuple(args.languages)),
        )
    except ValueError as error:
        parser.error(str(error))
    if not args.out.parent.is_dir():
        parser.error(f"--out: there is no folder {args.out.parent}")
    clean_up_on_sigterm()
    return _run(plan, args.out, Console(stderr=True))


def _run(plan: Plan, out: Path, console: Console) -> int:
    model = model_path()
    about = _about(plan, model)
    status = 0
    with Display(plan, console) as display:

        def keep(planned: Planned, point: Point) -> None:
            write(out, about, run.points, run.ladder.stopped)
            display.done(planned, point, run.ladder)

        run = Run(plan, model, on_start=display.start, on_point=keep)
        try:
            run.go()
        except KeyboardInterrupt:
            console.print("Interrupted; what was measured is kept.")
            status = _INTERRUPTED
        except (BenchError, PeerError, RuntimeError, VoiceLLMError) as error:
            console.print(str(error), style="red", markup=False, highlight=False)
            status = 1
    if run.points:
        _report(out, console)
    return status


def _about(plan: Plan, model: Path) -> dict[str, Any]:
    workload = plan.workload.describe(model)
    check(workload)
    return {
        "machine": machine() | {"threads": plan.threads},
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", __package__, *sys.argv[1:]]),
        "objective_ms": plan.objective_ms,
        "point_s": plan.point_s,
        "rounds": plan.rounds,
        "calls": list(plan.calls),
        "context_tokens": CONTEXT_TOKENS,
        "full": plan.full,
        "systems": {system.name: system.how for system in plan.systems},
        "workload": workload,
    }


def _report(out: Path, console: Console) -> None:
    """Show the result and, where it is the one that is committed, put it into the documents."""
    print(readme_block(out))
    write_plot(out, out.with_suffix(".png") if out != RESULTS else DOCS / PICTURE)
    if out == RESULTS and not write_docs():
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
    parser.add_argument("--threads", type=int, default=THREADS, metavar="N", help="of each server; the machine's cores")
    parser.add_argument(
        "--languages", nargs="+", choices=["en", "tr"], default=["en"], help="what callers speak, in turns; en"
    )
    parser.add_argument(
        "--full", action="store_true", help="measure all numbers of calls, also of a system that has missed two clearly"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="FILE", help=f"JSON file of the result; {RESULTS.name}"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
