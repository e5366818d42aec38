"""The tables of a result; ``python -m benchmarks.bench.tables`` writes them anew from the committed one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .results import BOUNDS_MS, Pooled, by_system, capacity, read

__all__ = ["DOCS", "PICTURE", "README", "RESULTS", "details", "readme_block", "write_docs"]

_ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = _ROOT / "README.md"
RESULTS: Final = _ROOT / "benchmarks" / "results" / "bench.json"
DOCS: Final = _ROOT / "docs" / "benchmarks"
PICTURE: Final = "bench.png"
_BLOCK: Final = re.compile(r"(<!-- bench -->\n).*?(<!-- /bench -->)", re.DOTALL)


def readme_block(path: Path = RESULTS) -> str:
    """Return the part of the README that a result makes: how many calls each system holds."""
    about, points = read(path)
    systems = by_system(points)
    return (
        "\n".join([_about(about), "", *_capacity_table(about, systems), "", *_speech_table(about, systems)])
        + f"\n\n![First speech by calls](docs/benchmarks/{PICTURE})\n"
    )


def details(path: Path = RESULTS) -> str:
    """Return the page of all figures."""
    about, points = read(path)
    systems = by_system(points)
    lines = ["# How many calls each system holds", "", _about(about), ""]
    lines += [f"![First speech by calls]({PICTURE})", "", *_capacity_table(about, systems), ""]
    lines += [f"- `{name}`: {how}" for name, how in about["systems"].items()]
    for pooled in systems.values():
        lines += ["", f"## {pooled[0].system}", "", *_detail_table(pooled)]
    lines += ["", *_stopped(about["stopped"])]
    return "\n".join(lines).rstrip() + "\n"


def write_docs(path: Path = RESULTS) -> bool:
    """Put the tables where they belong; returns whether the README has markers for its own."""
    DOCS.mkdir(parents=True, exist_ok=True)
    (DOCS / "bench.md").write_text(details(path))
    text = README.read_text()
    README.write_text(_BLOCK.sub(lambda m: m[1] + readme_block(path) + m[2], text))
    return _BLOCK.search(text) is not None


def _about(about: dict[str, Any]) -> str:
    machine, workload = about["machine"], about["workload"]
    own = workload["own_opening_tokens"]
    return (
        f"`{about['command']}` on {machine['cores']} cores of {machine['cpu']}, {machine['model']}, llama-cpp-python "
        f"{machine['llama_cpp_python']}, {machine['threads']} threads, {about['date']}: {about['rounds']} rounds of "
        f"{about['point_s']:g} s a point. Each call begins with {workload['system_tokens']} tokens that all share and "
        f"{own['least']:g} to {own['most']:g} of its own, and has {workload['turns']} turns with replies of up to "
        f"{workload['max_tokens']} tokens."
    )


def _capacity_table(about: dict[str, Any], systems: dict[str, list[Pooled]]) -> list[str]:
    bounds = sorted({*BOUNDS_MS, about["objective_ms"]})
    return [
        "Calls held while first speech (p95) comes within the bound, and no gap and no error in 99 % of the turns:",
        "",
        "| | " + " | ".join(_bound(bound, about["objective_ms"]) for bound in bounds) + " |",
        "|---|" + "---|" * len(bounds),
        *(
            f"| `{name}` | " + " | ".join(str(capacity(pooled, bound)) for bound in bounds) + " |"
            for name, pooled in systems.items()
        ),
    ]


def _speech_table(about: dict[str, Any], systems: dict[str, list[Pooled]]) -> list[str]:
    rungs = sorted({pooled.calls for points in systems.values() for pooled in points})
    lines = [
        f"First speech, p95 in ms by calls on the phone; **bold** meets the objective of {about['objective_ms']:g} ms:",
        "",
        "| | " + " | ".join(map(str, rungs)) + " |",
        "|---|" + "---|" * len(rungs),
    ]
    for name, points in systems.items():
        found = {pooled.calls: _speech(pooled, about["objective_ms"]) for pooled in points}
        lines.append(f"| `{name}` | " + " | ".join(found.get(calls, "") for calls in rungs) + " |")
    return lines


def _speech(pooled: Pooled, objective_ms: float) -> str:
    value = pooled.ms("first_speech_ms", 95)
    shown = "none" if value is None else f"{value:.0f}"
    return f"**{shown}**" if pooled.meets(objective_ms) else shown


_COLUMNS: Final = {
    "calls": lambda s: str(s["calls"]),
    "turns": lambda s: str(s["turns"]),
    "first token p50 / p95 / p99, ms": lambda s: _three(s, "first_token_ms"),
    "first speech p50 / p95 / p99, ms": lambda s: _three(s, "first_speech_ms"),
    "p95 by round, ms": lambda s: ", ".join(_number(value) for value in s["first_speech_ms_p95_by_round"]),
    "server's first token p50 / p95 / p99, ms": lambda s: _three(s, "server_first_token_ms"),
    "first clause p50 / p95 / p99, ms": lambda s: _three(s, "clause_ms"),
    "turns with a gap": lambda s: f"{s['gap_share']:.1%} ({s['gap_s']:.1f} s)",
    "tokens/s": lambda s: f"{s['tokens_per_s']:.0f}",
    "prompt tokens computed in turns / in all": lambda s: f"{s['computed_in_turns']} / {_number(s['computed_tokens'])}",
    "reused": lambda s: str(s["reused_tokens"]),
    "CPU s a call": lambda s: f"{s['cpu_s_a_call']:.1f}",
    "errors": lambda s: ", ".join(f"{code} {count}" for code, count in s["errors"].items()),
}


def _detail_table(points: Sequence[Pooled]) -> list[str]:
    summaries = [pooled.summary() for pooled in points]
    rows = {name: [shown(summary) for summary in summaries] for name, shown in _COLUMNS.items()}
    # What a system does not tell is no column of its table.
    kept = {name: cells for name, cells in rows.items() if any(cell.strip("- /") for cell in cells)}
    return [
        "| " + " | ".join(kept) + " |",
        "|" + "---|" * len(kept),
        *("| " + " | ".join(cells) + " |" for cells in zip(*kept.values(), strict=True)),
    ]


def _stopped(stopped: Sequence[dict[str, Any]]) -> list[str]:
    if not stopped:
        return []
    lines = ["Not measured, since the two numbers of calls before had missed the objective clearly:", ""]
    return lines + [
        f"- `{s['system']}`, round {s['round'] + 1}: {', '.join(map(str, s['not_measured']))} calls" for s in stopped
    ]


def _bound(bound_ms: float, objective_ms: float) -> str:
    return f"**{bound_ms / 1e3:g} s**" if bound_ms == objective_ms else f"{bound_ms / 1e3:g} s"


def _three(summary: dict[str, Any], name: str) -> str:
    return " / ".join(_number(summary[f"{name}_p{percent}"]) for percent in (50, 95, 99))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def main() -> None:
    """Write the tables and the picture of the committed result anew."""
    from .plot import write_plot

    write_docs()
    write_plot(RESULTS, DOCS / PICTURE)


if __name__ == "__main__":
    main()
