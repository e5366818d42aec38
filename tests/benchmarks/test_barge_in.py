"""Callers who interrupt the packaged model: the next turn finds all that was computed."""

from __future__ import annotations

from functools import partial
from typing import Final

import pytest

from benchmarks import barge_in
from benchmarks.common import engine_config
from voice_llm.simulator import CallerTurn, CallScript

pytestmark = pytest.mark.model


CALL: Final = CallScript(
    system_prompt="You are the phone assistant of a bank. Answer at length.",
    turns=tuple(CallerTurn(text) for text in ("When are you open?", "Wait. And on Sundays?", "Bir şey daha.", "Bye.")),
)


async def test_turns_after_barge_ins_compute_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where in its work the model is interrupted depends on the machine; that nothing is computed again does not."""
    # Threads that wait for each other on a busy machine take a hundred times as long as one that need not.
    monkeypatch.setattr(barge_in, "engine_config", partial(engine_config, threads=1, threads_batch=1))
    monkeypatch.setattr(barge_in, "make_scripts", lambda *_, **__: (CALL,))
    for name, pause_s in {"_SPEAKS_S": (0.1, 0.3), "_IMPATIENCE_S": 0.3, "_LISTENS_S": 0.1}.items():
        monkeypatch.setattr(barge_in, name, pause_s)
    row, reuse = await barge_in.barge_in(callers=1, least=1)
    assert row.figures["barge_ins"] >= 1
    assert reuse.passed, reuse.figures
    assert reuse.figures["turns"] >= 1
