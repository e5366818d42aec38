"""The tables of a result, each as lines of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from .capacity import best, bounds_ms, capacity, ratio
from .points import Pooled

__all__ = ["capacity_table", "detail_table", "speech_table", "token_table"]

_HELD_AGAINST_PEERS: Final = ("voice-llm", "voice-llm hints")
_FIRST_TOKEN: Final = {"first_token_ms": "at the client", "server_first_token_ms": "the server's own"}


def capacity_table(about: dict[str, Any], systems: dict[str, list[Pooled]]) -> list[str]:
    """Return how many calls each system holds within each bound, and against the best peer."""
    bounds = bounds_ms(about["objective_ms"])
    held = {name: [capacity(pooled, bound) for bound in bounds] for name, pooled in systems.items()}
    peers = {name: held[name] for name in about["peers"] if name in held}
    lines = [
        "Calls held while first speech (p95) comes within the bound, and no gap and no error in 99 % of the turns:",
        "",
        *_head(_bound(bound, about["objective_ms"]) for bound in bounds),
        *(_row(f"`{name}`", map(str, row)) for name, row in held.items()),
    ]
    for name in _HELD_AGAINST_PEERS:
        if name in held and peers:
            best_peer = [best(column) for column in zip(*peers.values(), strict=True)]
            times = [ratio(ours, peer) for ours, peer in zip(held[name], best_peer, strict=True)]
            lines.append(_row(f"`{name}` against the best peer", times))
    if peers:
        lines += ["", f"The best peer is that of the column, of {_listed(peers)}; none: it holds no call."]
    return lines


def speech_table(about: dict[str, Any], systems: dict[str, list[Pooled]]) -> list[str]:
    """Return how late speech starts, by calls."""
    rungs = sorted({pooled.calls for points in systems.values() for pooled in points})
    lines = [
        f"First speech, p95 in ms by calls on the phone; **bold** meets the objective of {about['objective_ms']:g} ms:",
        "",
        *_head(map(str, rungs)),
    ]
    for name, points in systems.items():
        found = {pooled.calls: _speech(pooled, about["objective_ms"]) for pooled in points}
        lines.append(_row(f"`{name}`", (found.get(calls, "") for calls in rungs)))
    return lines


def token_table(about: dict[str, Any], systems: dict[str, list[Pooled]]) -> list[str]:
    """Return how late the first token is below saturation, at the client and by the server's own timing."""
    by_calls = {name: {pooled.calls: pooled for pooled in points} for name, points in systems.items()}
    peers = [by_calls[name] for name in about["peers"] if name in by_calls]
    rungs = _below_saturation(about, by_calls)
    lines = [
        "First token, p50 in ms by calls on the phone, below saturation: where a peer is within the widest bound, or "
        "else at the smallest number. Converse sends chunks, so that what its client gets first is a clause or a "
        "sentence. The server's own timing, with what a turn waited before it reached the server, compares with the "
        "others:",
        "",
        *_head(map(str, rungs)),
    ]
    best_peer = [_least(peer[calls].ms("first_token_ms", 50) for peer in peers if calls in peer) for calls in rungs]
    ratios = []
    for name, found in by_calls.items():
        for column, where in _FIRST_TOKEN.items():
            values = [found[calls].ms(column, 50) if calls in found else None for calls in rungs]
            if column != "first_token_ms" and not any(values):
                continue
            lines.append(_row(f"`{name}`, {where}", map(_number, values)))
            if name in _HELD_AGAINST_PEERS and peers:
                title = f"`{name}`, {where}, against the best peer at the client"
                ratios.append(_row(title, map(_share, values, best_peer)))
    return lines + ratios


def _below_saturation(about: dict[str, Any], by_calls: Mapping[str, Mapping[int, Pooled]]) -> list[int]:
    """Return which numbers of calls a peer (any system, where none was measured) holds within the widest bound."""
    names = [name for name in about["peers"] if name in by_calls] or list(by_calls)
    widest_ms = bounds_ms(about["objective_ms"])[-1]
    held = {pooled.calls for name in names for pooled in by_calls[name].values() if pooled.meets(widest_ms)}
    return sorted(held) or [min(calls for found in by_calls.values() for calls in found)]


def _speech(pooled: Pooled, objective_ms: float) -> str:
    value = pooled.ms("first_speech_ms", 95)
    shown = "none" if value is None else f"{value:.0f}"
    return f"**{shown}**" if pooled.meets(objective_ms) else shown


_COLUMNS: Final = {
    "calls": lambda s: str(s["calls"]),
    "rounds": lambda s: str(s["rounds"]),
    "turns": lambda s: str(s["turns"]),
    "first token p50 / p95 / p99, ms": lambda s: _three(s, "first_token_ms"),
    "first speech p50 / p95 / p99, ms": lambda s: _three(s, "first_speech_ms"),
    "its p95, 95 % interval, ms": lambda s: _interval(s["first_speech_ms_p95_interval"]),
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


def detail_table(points: Sequence[Pooled]) -> list[str]:
    """Return all figures of a system, by calls."""
    summaries = [pooled.summary() for pooled in points]
    rows = {name: [shown(summary) for summary in summaries] for name, shown in _COLUMNS.items()}
    # What a system does not tell is no column of its table.
    kept = {name: cells for name, cells in rows.items() if any(cell.strip("- /") for cell in cells)}
    return [
        "| " + " | ".join(kept) + " |",
        "|" + "---|" * len(kept),
        *("| " + " | ".join(cells) + " |" for cells in zip(*kept.values(), strict=True)),
    ]


def _bound(bound_ms: float, objective_ms: float) -> str:
    return f"**{bound_ms / 1e3:g} s**" if bound_ms == objective_ms else f"{bound_ms / 1e3:g} s"


def _three(summary: dict[str, Any], name: str) -> str:
    return " / ".join(_number(summary[f"{name}_p{percent}"]) for percent in (50, 95, 99))


def _interval(ends: Sequence[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.0f} to {ends[1]:.0f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _head(columns: Iterable[str]) -> list[str]:
    cells = list(columns)
    return [_row("", cells).replace("  ", " "), "|---|" + "---|" * len(cells)]


def _row(title: str, cells: Iterable[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _share(ours: float | None, peer: float | None) -> str:
    return "-" if ours is None or not peer else f"{ours / peer:.2f}"
