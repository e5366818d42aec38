"""The file of a result: what was measured and how, and what that says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .capacity import bounds_ms, capacity, given_up
from .points import Point, by_system

__all__ = ["read", "write"]


def write(path: Path, about: dict[str, Any], points: Sequence[Point]) -> None:
    """Write everything, with a line a point; ``about`` is what ``sittings.describe`` returns."""
    systems = by_system(points, about["systems"])
    result = {
        **about,
        "capacity": {
            name: {
                f"{bound:g}": dataclasses.asdict(capacity(pooled, bound)) for bound in bounds_ms(about["objective_ms"])
            }
            for name, pooled in systems.items()
        },
        "stopped": [] if about["full"] else given_up(points, about["calls"], about["stop_ms"]),
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in result.items()]
    lines.append('"summary": ' + _lines([p.summary() for pooled in systems.values() for p in pooled]))
    lines.append('"points": ' + _lines([dataclasses.asdict(point) for point in points]))
    # Whole or not at all: a run of hours may be stopped while it writes.
    partial = path.with_suffix(f"{path.suffix}.partial")
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    partial.replace(path)


def read(path: Path) -> tuple[dict[str, Any], list[Point]]:
    """Return what ``write`` has written: all of it, and the points."""
    result: dict[str, Any] = json.loads(path.read_text())
    return result, [Point.from_json(point) for point in result["points"]]


def _lines(values: Iterable[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(value, ensure_ascii=False) for value in values) + "\n]"
