"""A result in the documents; ``python -m benchmarks.bench.tables`` writes them anew from the committed one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .markdown import capacity_table, detail_table, speech_table, token_table
from .points import Point, by_system
from .results import read

__all__ = ["DOCS", "PICTURE", "README", "RESULTS", "details", "readme_block", "write_docs"]

_ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = _ROOT / "README.md"
RESULTS: Final = _ROOT / "benchmarks" / "results" / "bench.json"
DOCS: Final = _ROOT / "docs" / "benchmarks"
PICTURE: Final = "bench.png"
_BLOCK: Final = re.compile(r"(<!-- bench -->\n).*?(<!-- /bench -->)", re.DOTALL)
_NO_RUN: Final = "No run has been recorded yet; `make bench` makes one and writes its figures here.\n"
_METHOD: Final = """\
Every point is a fresh server in a process of its own, and so many virtual callers on the phone with it at once. They
speak, think and listen as people do, hang up after their turns, and the next call begins; the calls of a round are the
same for every system. Turns count that are asked for within the point's window, on the callers' clocks. First speech is
the first `.`, `!`, `?` or `…` with a space after it, or 80 characters, or the end of the reply, for every system alike;
a gap is a silence that a caller would hear within a reply. The 95 % intervals are bootstrapped over the turns of all
rounds (1,000 resamples). Turns of one round are alike, so what rounds differ by, which is beside them, may be more.
"""


def readme_block(path: Path = RESULTS) -> str:
    """Return the part of the README that a result makes: how many calls each system holds."""
    if not path.exists():
        return _NO_RUN
    about, points = read(path)
    systems = by_system(points, about["systems"])
    tables = (capacity_table(about, systems), speech_table(about, systems), token_table(about, systems))
    lines = [_about(about, points)]
    for table in tables:
        lines += ["", *table]
    return "\n".join(lines) + f"\n\n![First speech by calls](docs/benchmarks/{PICTURE})\n"


def details(path: Path = RESULTS) -> str:
    """Return the page of all figures."""
    lines = ["# How many calls each system holds", "", _METHOD]
    if not path.exists():
        return "\n".join([*lines, _NO_RUN])
    about, points = read(path)
    systems = by_system(points, about["systems"])
    lines += [_about(about, points), "", _code(points), ""]
    lines += [f"![First speech by calls]({PICTURE})", "", *capacity_table(about, systems), ""]
    lines += [*token_table(about, systems), ""]
    lines += [f"- `{name}`: {how}" for name, how in about["systems"].items()]
    for pooled in systems.values():
        lines += ["", f"## {pooled[0].system}", "", *detail_table(pooled)]
    lines += ["", *_stopped(about)]
    return "\n".join(lines).rstrip() + "\n"


def write_docs(path: Path = RESULTS) -> bool:
    """Put the tables where they belong; returns whether the README has markers for its own."""
    DOCS.mkdir(parents=True, exist_ok=True)
    (DOCS / "bench.md").write_text(details(path))
    text = README.read_text()
    README.write_text(_BLOCK.sub(lambda m: m[1] + readme_block(path) + m[2], text))
    return _BLOCK.search(text) is not None


def _about(about: dict[str, Any], points: Sequence[Point]) -> str:
    machine, workload = about["machine"], about["workload"]
    own = workload["own_opening_tokens"]
    commands = ", then ".join(f"`{command}`" for command in about["commands"])
    rounds = max(len(pooled.points) for group in by_system(points).values() for pooled in group)
    return (
        f"{commands} on {machine['cores']} cores of {machine['cpu']}, {machine['model']}, llama-cpp-python "
        f"{machine['llama_cpp_python']}, {machine['threads']} threads, {_dates(points)}: up to {rounds} rounds of "
        f"{about['point_s']:g} s a point. Each call begins with {workload['system_tokens']} tokens that all share and "
        f"{own['least']:g} to {own['most']:g} of its own, and has {workload['turns']} turns with replies of up to "
        f"{workload['max_tokens']} tokens."
    )


def _dates(points: Sequence[Point]) -> str:
    days = sorted(point.date.partition("T")[0] for point in points)
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _code(points: Sequence[Point]) -> str:
    commits = Counter(point.commit or "unknown" for point in points)
    return "Code: " + ", ".join(f"{commit} ({count} points)" for commit, count in commits.items()) + "."


def _stopped(about: dict[str, Any]) -> list[str]:
    if not about["stopped"]:
        return []
    lines = [
        "Not measured, since at two numbers of calls in a row first speech (p95) came later than "
        f"{about['stop_ms']:g} ms, or more than a tenth of the replies had gaps or failed:",
        "",
    ]
    return lines + [
        f"- `{s['system']}`, round {s['round'] + 1}: {', '.join(map(str, s['not_measured']))} calls"
        for s in about["stopped"]
    ]


def main() -> None:
    """Write the tables and the picture of the committed result anew."""
    from .plot import write_plot

    write_docs()
    if RESULTS.exists():
        write_plot(RESULTS, DOCS / PICTURE)


if __name__ == "__main__":
    main()
