from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks.phone_calls import Arm, _cpu_s, _plain_environment, proofs, stage_table, summary
from voice_llm.simulator.phone import BotProcess, PhoneCall, PhoneTurn, Recording, TurnStages

pytestmark = pytest.mark.unit


def _turn(answer_ms: float | None, **fields: Any) -> PhoneTurn:
    times = ("speech_start_s", "speech_end_s", "speech_start_unix_s", "speech_end_unix_s")
    values: dict[str, Any] = {"voice_to_voice_ms": answer_ms, **dict.fromkeys(times, 0.0), **fields}
    return PhoneTurn(said="Hello?", answer_ms=answer_ms, **values)


def _arm(name: str, *turns: PhoneTurn, failures: tuple[str, ...] = ()) -> Arm:
    silence = np.zeros(160, np.int16)
    call = PhoneCall(call_id="c", started_unix_s=0.0, turns=turns, recording=Recording(silence, silence))
    bot = BotProcess(Path("bot.py"), output_path=Path("bot.log"))
    return Arm(name, bot, Path("log.jsonl"), [], [call], list(failures))


def _compared(ours: list[PhoneTurn], stock: list[PhoneTurn], **fields: Any) -> dict[str, Any]:
    return summary([_arm("stock", *stock), _arm("voice_llm", *ours, **fields)])


def test_both_ratios_are_of_ours_to_the_stock_bot() -> None:
    result = _compared([_turn(500), _turn(700), _turn(900)], [_turn(1000), _turn(2000), _turn(3000)])
    assert result["ratio_p50"] == 0.35
    assert result["ratio_p90"] == round(860 / 2800, 3)


def test_turns_without_an_honest_latency_are_counted_and_left_out() -> None:
    ours = _compared([_turn(500), _turn(None), _turn(20, talked_over=True)], [_turn(1000)])["arms"]["voice_llm"]
    assert ours["voice_to_voice_ms"] == [500]
    assert (ours["unanswered"], ours["talked_over"]) == (1, 1)


def test_the_latency_is_to_the_reply_that_the_bot_kept() -> None:
    ours = _compared([_turn(1500, voice_to_voice_ms=300.0, broken_off=1)], [_turn(1000)])["arms"]["voice_llm"]
    assert ours["voice_to_voice_ms"] == [1500]
    assert ours["broken_off"] == 1


def test_a_bot_that_never_answered_has_no_ratio_and_misses_the_objective() -> None:
    result = _compared([_turn(None)], [_turn(1000)])
    assert result["ratio_p50"] is None
    assert not any(proof.passed for proof in proofs(result))


@pytest.mark.parametrize(
    ("ours", "stop_ms", "failures", "passed"),
    [
        ([750.0] * 30, 350.0, (), [True, True]),
        ([760.0] * 30, 351.0, (), [False, False]),
        ([750.0] * 29, 350.0, (), [False, True]),
        ([750.0] * 20 + [1000.0] * 10, 350.0, (), [False, True]),
        ([750.0] * 30, 350.0, ("the bot hung up",), [False, True]),
    ],
    ids=["met", "too slow", "too few turns", "slow at the 90th percentile", "a call failed"],
)
def test_the_objectives_are_held(
    ours: list[float], stop_ms: float, failures: tuple[str, ...], passed: list[bool]
) -> None:
    turns = [_turn(value) for value in ours[:-1]] + [_turn(ours[-1], stop_ms=stop_ms, barge_in=True)]
    result = _compared(turns, [_turn(1000)] * 30, failures=failures)
    assert [proof.passed for proof in proofs(result)] == passed


def test_the_table_shows_each_stage_and_what_it_adds() -> None:
    stages = TurnStages(vad_stop_ms=210, transcript_ms=500, first_token_ms=550, audible_ms=900)
    result = _compared([_turn(900, stages=stages)], [_turn(2000)])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(stage_table(result))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.export_text().splitlines()]
    cells = {row[0]: row[1:] for row in rows if row}
    assert cells["transcript"] == ["-", "", "500", "+290"]
    assert cells["first chunk"] == ["-", "", "-", ""]
    assert cells["audible"] == ["-", "", "900", "+350"]


def test_everything_that_was_measured_fits_into_json() -> None:
    result = _compared([_turn(900, stages=TurnStages(audible_ms=900.0))], [_turn(2000)])
    assert json.loads(json.dumps(result))["arms"]["voice_llm"]["calls"][0]["turns"][0]["voice_to_voice_ms"] == 900


def test_bots_are_started_without_the_choice_of_how_openmp_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    with _plain_environment():
        assert "OMP_WAIT_POLICY" not in os.environ
    assert os.environ["OMP_WAIT_POLICY"] == "active"
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells")
def test_the_cpu_time_of_processes_is_added_up() -> None:
    assert _cpu_s([os.getpid()]) == pytest.approx(time.process_time(), abs=0.1)
    assert _cpu_s([os.getpid()] * 2) == pytest.approx(2 * time.process_time(), abs=0.2)
