"""The text view: what stands on the screen when somebody types the caller's part."""

from __future__ import annotations

import pytest

from voice_llm.cli.view import TextView
from voice_llm.events import FinishReason, Timings, Usage
from voice_llm.session import CallError, Chunk, Ended, TurnEnd

pytestmark = pytest.mark.unit


def test_line_that_was_typed_is_not_shown_twice(capsys: pytest.CaptureFixture[str]) -> None:
    view = TextView(typed=True)
    view.listening()
    assert capsys.readouterr().out == "\ncaller  "
    view.caller("Alo?")
    view.show(Chunk("t1", 0, "Buyurun. ", False))
    view.show(Chunk("t1", 1, "Dinliyorum.", True))
    assert capsys.readouterr().out == "agent   Buyurun. Dinliyorum."


def test_hanging_up_at_the_prompt_leaves_the_next_prompt_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the shell, after Ctrl-D or Ctrl-C."""
    view = TextView(typed=True)
    view.listening()
    view.show(Ended("hangup", 0))
    assert capsys.readouterr().out == "\ncaller  \n"


def test_error_in_mid_reply_begins_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = TextView()
    view.show(Chunk("t1", 0, "Bir dakika, ", False))
    view.show(CallError("internal", "out of luck", turn_id="t1"))
    view.show(TurnEnd("t1", FinishReason.ERROR, Usage(), Timings()))
    shown = capsys.readouterr()
    assert shown.out == "agent   Bir dakika, \n        failed\n"
    assert shown.err == "voice-llm: out of luck\n"


def test_figures_leave_out_what_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    view = TextView()
    view.show(Chunk("t1", 0, "Evet.", True))
    view.show(TurnEnd("t1", FinishReason.STOP, Usage(100, 90, 11), Timings(1.0, 99.0, 100.0, 250.0, 1100.0)))
    figures = "first token 100 ms | first chunk 250 ms | 90/100 tokens reused | 10 tokens/s"
    assert capsys.readouterr().out == f"agent   Evet.\n        {figures}\n"
    view.show(TurnEnd("t2", FinishReason.INTERRUPTED, Usage(100, 90, 0), Timings(queue_ms=1.0)))
    assert capsys.readouterr().out == "        interrupted | 90/100 tokens reused\n"
