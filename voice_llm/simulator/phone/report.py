"""A call for the terminal: the transcript of both sides and the table of latencies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .results import PhoneCall, PhoneTurn, TurnStages

__all__ = ["latency_table", "transcript_table"]

_UNKNOWN: Final = "–"
STAGES: Final = (
    ("transcript_ms", "transcript"),
    ("first_token_ms", "first token"),
    ("first_chunk_ms", "first chunk"),
    ("first_audio_ms", "first audio"),
    ("audible_ms", "audible"),
)
"""The stages of a reply in their order, and what they are called."""


def transcript_table(call: PhoneCall) -> RenderableType:
    """Show who said what: the caller's words, what the bot heard of them, and what it said."""
    table = Table(title="Transcript", show_header=False, box=None, padding=(0, 1), title_justify="left")
    table.add_column(style="dim", justify="right")
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    if call.greeting_ms is not None:
        table.add_row(_at(call.greeting_ms / 1000), "[green]Bot[/]", Text(call.greeting or _UNKNOWN))
    for turn in call.turns:
        table.add_row(
            _at(turn.speech_start_s), "[cyan]Caller[/]" + (" [red]barges in[/]" * turn.barge_in), Text(turn.said)
        )
        table.add_row("", "[dim]  bot heard[/]", Text(turn.heard or _UNKNOWN, style="dim"))
        table.add_row(_at(turn.reply_start_s), "[green]Bot[/]", _reply(turn))
    return table


def latency_table(call: PhoneCall) -> RenderableType:
    """Show, for each turn, when its reply got how far, in milliseconds after the end of the caller's speech."""
    table = Table(
        title="Latency after the end of the caller's speech, in ms",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("turn", justify="right")
    for _, name in STAGES:
        table.add_column(name, justify="right")
    table.add_column("stopped", justify="right")
    for number, turn in enumerate(call.turns, 1):
        stages = turn.stages or TurnStages(audible_ms=turn.voice_to_voice_ms)
        figures = [_ms(getattr(stages, field)) for field, _ in STAGES]
        table.add_row(str(number), *figures, _ms(turn.stop_ms) if turn.barge_in else "")
    return Group(table, *(Text(note, style="yellow") for note in _notes(call)), Text(_exactness(call), style="dim"))


def _notes(call: PhoneCall) -> Iterator[str]:
    for number, turn in enumerate(call.turns, 1):
        if turn.broken_off:
            answer = "none that it kept" if turn.answer_ms is None else f"the one it kept after {turn.answer_ms:.0f} ms"
            yield f"Turn {number}: the bot began a reply and dropped it; {answer}."
        if turn.talked_over:
            yield f"Turn {number}: the bot spoke before the caller had ended."


def _exactness(call: PhoneCall) -> str:
    late = f"the caller's own clock was late by {call.max_late_ms:.0f} ms at worst"
    return f"Measured at the caller's edge, in frames of 20 ms; {late}."


def _reply(turn: PhoneTurn) -> Text:
    text = Text(turn.reply or ("" if turn.reply_interrupted else _UNKNOWN))
    if turn.reply_interrupted:
        text.append(" [interrupted]" if turn.reply else "[interrupted]", style="red")
    return text


def _at(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:5.1f} s"


def _ms(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.0f}"
