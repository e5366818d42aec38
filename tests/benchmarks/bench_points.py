"""Points of a made-up run, for the tests of the benchmark."""

from __future__ import annotations

from typing import Any

from benchmarks.bench.points import Point


def point(system: str = "ours", calls: int = 2, round_: int = 0, **fields: Any) -> Point:
    """A point of 100 smooth turns with speech after 400 ms."""
    plain: dict[str, Any] = {
        "system": system,
        "calls": calls,
        "round": round_,
        "date": "2026-01-31T12:00:00+00:00",
        "window_s": 100.0,
        "turns": 100,
        "first_token_ms": (100.0,) * 100,
        "first_speech_ms": (400.0,) * 100,
        "gap_s": (0.0,) * 100,
        "errors": {},
        "prompt_tokens": 50_000,
        "cached_tokens": 40_000,
        "completion_tokens": 4_000,
        "computed_tokens": None,
        "cpu_s": 150.0,
    }
    return Point(**{**plain, **fields})


def late(ms: float, **fields: Any) -> Point:
    """A point whose speech comes so late."""
    return point(first_speech_ms=(ms,) * 100, **fields)


ABOUT: dict[str, Any] = {
    "machine": {"cpu": "Z80", "cores": 2, "model": "tiny.gguf", "llama_cpp_python": "0.3.36", "threads": 2},
    "commands": ["python -m benchmarks.bench"],
    "objective_ms": 1000.0,
    "stop_ms": 4000.0,
    "point_s": 100.0,
    "rounds": 2,
    "calls": [2, 4],
    "context_tokens": 2048,
    "full": False,
    "systems": {"ours": "our own", "peer": "the other"},
    "peers": ["peer"],
    "workload": {
        "system_tokens": 170,
        "own_opening_tokens": {"least": 310, "most": 330},
        "turns": 6,
        "max_tokens": 48,
    },
}
