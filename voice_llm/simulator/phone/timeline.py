"""A picture of a call: what both sides sounded like over time, and where each reply's latency went."""

from __future__ import annotations

import importlib
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ...errors import ConfigError
from .audio import SAMPLE_RATE, Samples
from .report import STAGES
from .results import PhoneCall, PhoneTurn
from .speech_edges import speech_regions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_timeline"]

_CALLER: Final = "#1f77b4"
_BOT: Final = "#2a8c4a"
_BARGE_IN: Final = "#d62728"
_WAIT: Final = "#f2c14e"
_STAGE_COLOURS: Final = ("#8da0cb", "#fc8d62", "#e5c494", "#66c2a5", "#b3b3b3")
# One column of the picture is about that long.
_ENVELOPE_SAMPLES: Final = SAMPLE_RATE // 50
_INCHES_PER_S: Final = 0.32
_FONT_POINTS: Final = 8.5
# Of words in that size, on the width of the whole picture with its margins.
_CHARS_PER_INCH: Final = 12.5
_LABEL_LINES: Final = 4
_MERGE_GAP_S: Final = 0.35


def draw_timeline(call: PhoneCall, path: Path) -> None:
    """Write the picture as PNG.

    Args:
        call: The call; with its bot's call log joined, the stages of each reply are shown too.
        path: The file.

    Raises:
        ConfigError: The package matplotlib is missing.
        OSError: The file cannot be written.
    """
    figure_class, canvas_class = (
        _import("matplotlib.figure").Figure,
        _import("matplotlib.backends.backend_agg").FigureCanvasAgg,
    )
    width = min(28.0, max(13.0, call.recording.duration_s * _INCHES_PER_S + 2))
    bars = 0.8 + 0.42 * max(1, len(call.turns))
    figure = figure_class(figsize=(width, 4.6 + bars), layout="constrained")
    canvas_class(figure)
    caller, bot, latency = figure.subplots(3, 1, height_ratios=[2.3, 2.3, bars])
    bot.sharex(caller)
    _draw_side(caller, call.recording.caller, "caller", _CALLER)
    _draw_side(bot, call.recording.bot, "bot, as the caller heard it", _BOT)
    chars_per_s = width * _CHARS_PER_INCH / max(call.recording.duration_s, 0.1)
    ends_s = [*(turn.speech_start_s for turn in call.turns[1:]), call.recording.duration_s]
    for number, (turn, end_s) in enumerate(zip(call.turns, ends_s, strict=False), 1):
        words = textwrap.wrap(f"{number}. {turn.said}", max(12, int((end_s - turn.speech_start_s) * chars_per_s)))
        _label(caller, turn.speech_start_s, "\n".join(words[:_LABEL_LINES]), _CALLER)
        _draw_turn(caller, bot, turn)
    caller.set_title(_title(call), loc="left", fontsize=11)
    caller.tick_params(labelbottom=False)
    bot.set_xlabel("seconds of the call")
    caller.set_xlim(0, max(call.recording.duration_s, 0.1))
    _draw_latencies(latency, call.turns)
    figure.savefig(path, dpi=110, format="png")


def _draw_side(axes: Axes, samples: Samples, name: str, colour: str) -> None:
    padded = np.pad(samples, (0, -len(samples) % _ENVELOPE_SAMPLES)).reshape(-1, _ENVELOPE_SAMPLES) / 32768
    times = np.arange(len(padded)) * _ENVELOPE_SAMPLES / SAMPLE_RATE
    axes.fill_between(times, padded.min(axis=1, initial=0), padded.max(axis=1, initial=0), color=colour, linewidth=0.4)
    for start, end in speech_regions(samples, merge_gap_s=_MERGE_GAP_S):
        axes.axvspan(start / SAMPLE_RATE, end / SAMPLE_RATE, color=colour, alpha=0.12, linewidth=0)
    height = max(0.1, float(np.abs(padded).max(initial=0)) * 1.15)
    axes.set_ylim(-height, height * 1.9)  # room for words above
    axes.set_yticks([])
    axes.set_ylabel(name)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_turn(caller: Axes, bot: Axes, turn: PhoneTurn) -> None:
    if turn.reply_start_s is not None and turn.voice_to_voice_ms is not None:
        for axes in (caller, bot):
            axes.axvspan(turn.speech_end_s, turn.reply_start_s, color=_WAIT, alpha=0.45, linewidth=0)
        _label(bot, turn.speech_end_s, f"{turn.voice_to_voice_ms / 1000:.2f} s", "black", weight="bold")
    if turn.barge_in and turn.stop_ms is not None:
        for axes in (caller, bot):
            axes.axvline(turn.speech_start_s, color=_BARGE_IN, linewidth=1.4)
        stop_s = turn.speech_start_s + turn.stop_ms / 1000
        bot.axvline(stop_s, color=_BARGE_IN, linewidth=1.0, linestyle=":")
        _label(bot, stop_s + 0.1, f"barge-in: bot\nsilent after {turn.stop_ms:.0f} ms", _BARGE_IN, bottom=True)


def _label(axes: Axes, at_s: float, text: str, colour: str, *, bottom: bool = False, weight: str = "normal") -> None:
    axes.annotate(
        text,
        (at_s, 0.04 if bottom else 0.98),
        xycoords=("data", "axes fraction"),
        color=colour,
        fontsize=_FONT_POINTS,
        fontweight=weight,
        va="bottom" if bottom else "top",
    )


def _draw_latencies(axes: Axes, turns: tuple[PhoneTurn, ...]) -> None:
    """One bar a turn, from the end of the caller's speech to the first audible sample, a colour for each stage."""
    named: set[str] = set()
    for row, turn in enumerate(turns):
        begin = 0.0
        for (field, name), colour in zip(STAGES, _STAGE_COLOURS, strict=True):
            end = turn.voice_to_voice_ms if field == "audible_ms" else getattr(turn.stages, field, None)
            if end is None or end <= begin:
                continue
            axes.barh(
                row, end - begin, left=begin, height=0.62, color=colour, label=None if name in named else f"to {name}"
            )
            if end - begin > 90:
                axes.text((begin + end) / 2, row, f"{end - begin:.0f}", ha="center", va="center", fontsize=8)
            named.add(name)
            begin = end
        axes.text(begin, row, f" {_total(turn)}", va="center", fontsize=9, fontweight="bold")
    axes.set_yticks(range(len(turns)), [f"turn {number}" for number in range(1, len(turns) + 1)])
    axes.set_ylim(len(turns) - 0.45, -0.55)
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds after the end of the caller's speech")
    axes.spines[["top", "right"]].set_visible(False)
    if named:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)


def _total(turn: PhoneTurn) -> str:
    if turn.voice_to_voice_ms is None:
        return "no reply"
    if not turn.broken_off:
        return f"{turn.voice_to_voice_ms:.0f} ms"
    kept = "none kept" if turn.answer_ms is None else f"kept one after {turn.answer_ms:.0f} ms"
    return f"{turn.voice_to_voice_ms:.0f} ms, dropped; {kept}"


def _title(call: PhoneCall) -> str:
    figures = call.voice_to_voice_ms
    latency = f"voice to voice p50 {figures.p50:.0f} ms" if figures else "no reply was heard"
    return f"A call of {call.recording.duration_s:.0f} s, {len(call.turns)} turns: {latency}"


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError('the timeline needs matplotlib: pip install "pipecat-voice-llm[simulator]"') from None
