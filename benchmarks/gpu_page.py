"""The page with the figures of a GPU: tables between its markers, made from the results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

__all__ = ["PAGE", "tables", "write_page"]

PAGE: Final = Path(__file__).parent.parent / "docs" / "benchmarks" / "gpu.md"
_BLOCK: Final = re.compile(r"(<!-- gpu -->\n).*?(<!-- /gpu -->)", re.DOTALL)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 257)
_DECODE: Final = "decode"
_HEARD: Final = (
    "calls",
    "KV",
    "`auto` takes",
    "turns",
    "errors",
    "first token",
    "first speech",
    "replies with gaps",
    "tokens/s",
    "prompt tokens/s",
    "memory, MiB",
)

Results = dict[str, Any]


def write_page(results: Sequence[Results], page: Path = PAGE) -> None:
    """Put the tables where the page's markers are."""
    page.write_text(_BLOCK.sub(lambda match: match[1] + tables(results) + match[2], page.read_text()))


def tables(results: Sequence[Results]) -> str:
    """Return the tables of runs on the same machine with the same model, as Markdown.

    Raises:
        ValueError: The runs are not comparable.
    """
    first = results[0]
    for name in ("machine", "model", "window_s"):
        if any(result[name] != first[name] for result in results):
            raise ValueError(f"the results differ in their {name}: they do not belong into one table")
    points = sorted((p for result in results for p in result["points"]), key=lambda p: (p["calls"], p["layout"]))
    return "\n".join(
        [
            _about(first),
            "",
            "What callers hear, milliseconds after the end of their turn (p50 / p95 / p99):",
            "",
            *_table(
                _HEARD,
                (_heard(point) for point in points),
            ),
            "",
            "A step by its rows, one token a talking call, and a token of a prompt, in milliseconds:",
            "",
            *_table(
                ("calls", "KV", *map(_rows_name, range(len(_ROWS) - 1)), "prompt token"),
                (_steps(point) for point in points),
            ),
            "",
            "Where the time goes, in shares of the window:",
            "",
            *_shares(points),
            "",
        ]
    )


def _about(result: Results) -> str:
    machine = result["machine"]
    gpu = f"{machine['gpu']}, driver {machine['driver']}" if machine["gpu"] else "No GPU"
    return (
        f"{result['date']}: {gpu}; {machine['cores']} cores of {machine['cpu']}; Python {machine['python']}, "
        f"llama-cpp-python {machine['llama_cpp_python']}; `{result['model']}`, {result['window_s']:g} s a point."
    )


def _heard(point: Results) -> list[str]:
    chosen = point["chosen"]
    flash = "with" if chosen["flash_attention"] == "on" else "without"
    memory = ", ".join(f"{value:,.0f} ({where})" for where, value in point["memory"].items())
    return [
        *_name(point),
        f"{chosen['kv_layout']}, {flash} flash attention",
        str(point["turns"]),
        str(point["errors"]),
        _percentiles(point["first_token_ms"]),
        _percentiles(point["first_speech_ms"]),
        f"{point['turns_with_gaps']} ({point['gap_s']:g} s)",
        f"{point['tokens_per_s']:,.0f}",
        f"{point['prompt_tokens_per_s']:,.0f}",
        memory,
    ]


def _steps(point: Results) -> list[str]:
    cells = []
    for low, high in pairwise(_ROWS):
        found = [step for rows, step in point["steps"].items() if low <= int(rows) < high]
        count = sum(step["steps"] for step in found)
        cells.append(f"{sum(step['ms'] * step['steps'] for step in found) / count:.2f}" if count else "")
    prefill_ms = point["prefill_ms_per_token"]
    return [*_name(point), *cells, "" if prefill_ms is None else f"{prefill_ms:.3f}"]


def _rows_name(index: int) -> str:
    low, last = _ROWS[index], _ROWS[index + 1] - 1
    return f"{low}" if low == last else f"{low} to {last}" if last < _ROWS[-1] - 1 else f"{low} and more"


def _shares(points: Sequence[Results]) -> list[str]:
    """Make a column of everything that took time anywhere, the largest first; decoding in one."""
    shares = [_shares_of(point) for point in points]
    totals: dict[str, float] = {}
    for point_shares in shares:
        for what, share in point_shares.items():
            totals[what] = totals.get(what, 0.0) + share
    columns = sorted(totals, key=lambda what: -totals[what])
    rows = (
        [*_name(point), *(f"{found.get(what, 0.0):.1%}" for what in columns)]
        for point, found in zip(points, shares, strict=True)
    )
    return _table(("calls", "KV", *columns), rows)


def _shares_of(point: Results) -> dict[str, float]:
    shares: dict[str, float] = {}
    for line in point["time"]["lines"]:
        what = _DECODE if line["what"].startswith(_DECODE) else line["what"]
        shares[what] = shares.get(what, 0.0) + line["share"]
    return shares


def _name(point: Results) -> list[str]:
    return [str(point["calls"]), point["layout"]]


def _percentiles(values: dict[str, float] | None) -> str:
    return " / ".join(f"{values[name]:.0f}" for name in ("p50", "p95", "p99")) if values else "none"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
