"""A run in more than one sitting: how a result was made, and whether a new run may go on with it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..common import machine
from .ladder import Plan
from .points import Point
from .results import read
from .run import CONTEXT_TOKENS
from .systems import SYSTEMS
from .workload import check

__all__ = ["ResumeError", "describe", "held", "resume"]

# What must be the same for points to stand in one table. What is measured, and how long a ladder is, may change.
_SAME: Final = ("machine", "objective_ms", "point_s", "context_tokens", "workload")
_TOLD: Final = {*_SAME, "commands", "rounds", "calls", "systems", "peers"}


class ResumeError(Exception):
    """The points of a result cannot be gone on with; the message says why."""


def describe(plan: Plan, model: Path) -> dict[str, Any]:
    """Return what a result says of how it was made.

    Raises:
        ValueError: The workload is not what it is meant to be, with this model.
    """
    workload = plan.workload.describe(model)
    check(workload)
    return {
        "machine": machine() | {"threads": plan.threads, "model": model.name},
        "commands": [_command(sys.argv[1:])],
        "objective_ms": plan.objective_ms,
        "stop_ms": plan.stop_ms,
        "point_s": plan.point_s,
        "rounds": plan.rounds,
        "calls": list(plan.calls),
        "context_tokens": CONTEXT_TOKENS,
        "full": plan.full,
        "systems": {system.name: system.how for system in plan.systems},
        "peers": [system.name for system in plan.systems if system.peer],
        "workload": workload,
    }


def _command(arguments: Sequence[str]) -> str:
    """Return the command of a run, without the place of its result, which is nobody else's."""
    kept = list(arguments)
    if "--out" in kept:
        at = kept.index("--out")
        del kept[at : at + 2]
    kept = [argument for argument in kept if not argument.startswith("--out=")]
    return shlex.join(["python", "-m", __package__ or "benchmarks.bench", *kept])


def held(path: Path) -> tuple[dict[str, Any], list[Point]] | None:
    """Return the result that a file holds; None where there is none, or none with points.

    Raises:
        ResumeError: It holds something else.
    """
    try:
        about, points = read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResumeError(f"{path} does not hold a result of this benchmark ({type(error).__name__})") from error
    missing = _TOLD - about.keys()
    if missing:
        raise ResumeError(
            f"{path} is of another version of this benchmark: it does not tell {', '.join(sorted(missing))}"
        )
    return (about, points) if points else None


def resume(before: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a result was made that goes on from another one.

    Args:
        before: How that one was made.
        about: How a new one would be.

    Raises:
        ResumeError: Their points do not compare; it says in what they differ.
    """
    now: dict[str, Any] = json.loads(json.dumps(about))
    systems = before["systems"]
    differing = [line for name in _SAME for line in _differences(name, before.get(name), now[name])]
    differing += [
        line
        for name in systems.keys() & now["systems"]
        for line in _differences(json.dumps(name), systems[name], about["systems"][name])
    ]
    if differing:
        raise ResumeError(f"these points were measured otherwise: {'; '.join(differing)}")
    known = {**systems, **now["systems"]}
    return now | {
        "commands": list(dict.fromkeys([*before["commands"], *now["commands"]])),
        "rounds": max(before["rounds"], now["rounds"]),
        "calls": sorted({*before["calls"], *now["calls"]}),
        "systems": {system.name: known[system.name] for system in SYSTEMS if system.name in known},
        "peers": [system.name for system in SYSTEMS if system.name in {*before["peers"], *now["peers"]}],
    }


def _differences(name: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            yield from _differences(f"{name}.{key}", before.get(key), now.get(key))
    elif before != now:
        yield f"{name} was {json.dumps(before)} and is {json.dumps(now)}"
