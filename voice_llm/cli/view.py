"""How a call is shown: as JSON lines for programs, or as text for people."""

from __future__ import annotations

import json
from typing import Final

from rich.console import Console

from ..events import FinishReason
from ..runtime import Engine
from ..session import CallError, Chunk, Ended, Ready, SessionEvent, TurnEnd, to_json

__all__ = ["JsonView", "TextView", "View"]


class View:
    """Shows a call; this one shows nothing."""

    def opened(self, engine: Engine) -> None:
        """The engine is loaded."""

    def listening(self) -> None:
        """The caller may speak, by typing a line."""

    def caller(self, text: str) -> None:
        """The caller has spoken."""

    def show(self, event: SessionEvent) -> None:
        """Something happened in the call."""


class JsonView(View):
    """One JSON object a line, as on the wire."""

    def show(self, event: SessionEvent) -> None:
        """Print the event."""
        print(json.dumps(to_json(event), ensure_ascii=False), flush=True)


class TextView(View):
    """For people: both sides of the call, and the figures of each turn.

    Args:
        typed: Whether what the caller says is typed into the terminal, and so on the screen already.
    """

    def __init__(self, *, typed: bool = False) -> None:
        # Replies and paths are data: shown as they are, on one line where they are one.
        self._out = Console(highlight=False, soft_wrap=True, emoji=False)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._typed = typed
        self._in_line = False

    def opened(self, engine: Engine) -> None:
        """Name the model."""
        info = engine.backend.info
        model = info.model_id.rpartition(":")[0] or info.model_id
        layout = "split" if info.split_kv else "unified"
        self._out.print(f"{model}: {info.sequences} calls of {info.context_per_call} tokens, {layout} KV", style="dim")

    def listening(self) -> None:
        """Ask for a line."""
        if self._typed:
            self._speaker("caller", "bold cyan", gap=True)

    def caller(self, text: str) -> None:
        """Print what the caller says, where it was not typed."""
        if self._typed:
            self._in_line = False
            return
        self._speaker("caller", "bold cyan", gap=True)
        self._out.print(text, markup=False)
        self._in_line = False

    def show(self, event: SessionEvent) -> None:
        """Print the event."""
        if isinstance(event, Chunk):
            if event.index == 0:
                self._end_line()
                self._speaker("agent", "bold green")
            self._out.print(event.text, end="", markup=False)
            return
        if isinstance(event, TurnEnd) and event.finish_reason is FinishReason.STOP and not self._in_line:
            self._speaker("agent", "bold green")
            self._out.print("(no words)", style="dim", end="")
        self._end_line()
        if isinstance(event, TurnEnd):
            self._out.print(f"        {_figures(event)}", style="dim")
        elif isinstance(event, Ready) and event.usage.prompt_tokens:
            usage = event.usage
            computed = f"{usage.prompt_tokens - usage.cached_tokens} of {usage.prompt_tokens} tokens computed"
            self._out.print(f"ready in {event.prefill_ms:.0f} ms: {computed}", style="dim")
        elif isinstance(event, CallError):
            self._err.print(f"voice-llm: {event.message}", style="red", markup=False)
        elif isinstance(event, Ended) and event.turns:
            turns = "1 turn" if event.turns == 1 else f"{event.turns} turns"
            self._out.print(f"\n{turns} in {event.duration_s:.1f} s", style="dim")

    def _speaker(self, name: str, style: str, *, gap: bool = False) -> None:
        if gap:
            self._out.print()
        self._out.print(f"{name:<8}", style=style, end="")
        self._in_line = True

    def _end_line(self) -> None:
        if self._in_line:
            self._out.print()
            self._in_line = False


_ENDS: Final = {
    FinishReason.LENGTH: "cut at --max-tokens",
    FinishReason.ERROR: "failed",
    FinishReason.INTERRUPTED: "interrupted",
    FinishReason.CANCELLED: "cancelled",
}


def _figures(end: TurnEnd) -> str:
    usage, timings = end.usage, end.timings
    figures = [_ENDS[end.finish_reason]] if end.finish_reason in _ENDS else []
    if timings.first_token_ms is not None:
        figures.append(f"first token {timings.first_token_ms:.0f} ms")
    if timings.first_chunk_ms is not None:
        figures.append(f"first chunk {timings.first_chunk_ms:.0f} ms")
    if usage.prompt_tokens:
        figures.append(f"{usage.cached_tokens}/{usage.prompt_tokens} tokens reused")
    if timings.first_token_ms is not None and timings.total_ms is not None and usage.completion_tokens > 1:
        rate = (usage.completion_tokens - 1) / max(timings.total_ms - timings.first_token_ms, 1e-3) * 1e3
        figures.append(f"{rate:.0f} tokens/s")
    return " | ".join(figures)
