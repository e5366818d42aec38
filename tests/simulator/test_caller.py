"""A call reads as a timeline: 1 word a second, 10 characters a second are heard, 2 s to think."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from voice_llm.errors import AtCapacityError, EngineDeadError
from voice_llm.events import Usage
from voice_llm.simulator import Caller, CallerTurn, CallResult, CallScript

from .fakes import Heard, Pieces, ScriptedTarget, now, virtually

pytestmark = pytest.mark.unit

SCRIPT = CallScript(
    turns=(CallerTurn("one two three four five six seven", 40), CallerTurn("bir iki")),
    system_prompt="Kısa konuş.",
    speaking_wpm=60,
    think_s=2.0,
    listen_chars_per_s=10.0,
)
LONG: Pieces = [(0.25, "Yes."), (0.25, " That"), (1.0, " is so. "), (2.0, "Good.")]
SHORT: Pieces = [(0.5, "Evet.")]


def call(target: ScriptedTarget, script: CallScript = SCRIPT, *, until_s: float = math.inf) -> CallResult:
    async def main() -> CallResult:
        return await Caller(script, target, "c1", clock=now, sleep=asyncio.sleep, until_s=until_s).run()

    return virtually(main)


def script_with(**changes: object) -> CallScript:
    return replace(SCRIPT, **changes)  # type: ignore[arg-type]


def times(events: Sequence[tuple[object, ...]]) -> list[object]:
    return [pytest.approx(event[0]) for event in events]


def only_call(target: ScriptedTarget) -> Heard:
    (heard,) = target.calls
    return heard


def test_a_call_takes_its_time() -> None:
    target = ScriptedTarget([LONG, SHORT], open_s=3.0, usage=Usage(9, 4, 3))
    result = call(target)
    first, second = result.turns
    # Open at 3, spoken until 10. "Yes. That" starts to play at 10.5 and lasts to 11.4, " is so. " comes at 11.5 and
    # lasts to 12.3, "Good." comes at 13.5 and lasts to 14.0.
    assert first.asked_s == pytest.approx(10.0)
    assert first.first_token_ms == pytest.approx(250)
    assert first.first_speech_ms == pytest.approx(500)
    assert first.total_ms == pytest.approx(3500)
    assert [first.gaps, first.gap_s] == pytest.approx([2, 0.1 + 1.2])
    assert first.text == "Yes. That is so. Good."
    # Heard at 14, thought until 16, spoken until 18, answered at 18.5, heard at 19.
    assert second.asked_s == pytest.approx(18.0)
    assert [second.first_token_ms, second.first_speech_ms] == pytest.approx([500, 500])
    assert (second.gaps, second.gap_s) == (0, 0.0)
    assert [result.started_s, result.ended_s] == pytest.approx([0.0, 19.0])
    assert only_call(target).closed_s == pytest.approx(19.0)
    assert (first.usage, result.errors) == (Usage(9, 4, 3), ())


def test_the_target_gets_the_whole_history_and_the_limit_of_each_turn() -> None:
    target = ScriptedTarget([LONG, SHORT])
    call(target)
    (_, first, first_limit), (_, second, second_limit) = only_call(target).turns
    system = {"role": "system", "content": "Kısa konuş."}
    question = {"role": "user", "content": "one two three four five six seven"}
    assert (first, first_limit) == ([system, question], 40)
    answer = {"role": "assistant", "content": "Yes. That is so. Good."}
    assert (second, second_limit) == ([system, question, answer, {"role": "user", "content": "bir iki"}], None)


def test_what_was_said_so_far_is_sent_while_the_caller_speaks() -> None:
    target = ScriptedTarget([SHORT])
    call(target)
    hints = only_call(target).hints
    assert times(hints) == [0.0, 3.0, 6.0]
    assert [messages[-1]["content"] for _, messages in hints] == ["", "one two three", "one two three four five six"]
    assert all(messages[0]["content"] == "Kısa konuş." for _, messages in hints)


def test_a_caller_without_hints_sends_none() -> None:
    target = ScriptedTarget([SHORT])
    call(target, script_with(partials=False, prefill_on_open=False))
    assert only_call(target).hints == []
    call(target, script_with(partials=False))
    assert len(target.calls[1].hints) == 1


def test_a_person_does_not_wait_for_hints_and_drops_those_that_are_left() -> None:
    target = ScriptedTarget([SHORT], hint_s=1000.0)
    result = call(target)
    assert [turn.asked_s for turn in result.turns] == [pytest.approx(7.0), pytest.approx(12.0)]
    assert result.ended_s < 20
    assert only_call(target).cancelled_hints == 3


def test_a_failed_hint_is_on_record_and_the_call_goes_on() -> None:
    result = call(ScriptedTarget([SHORT], hint_error=EngineDeadError("gone")))
    assert [turn.error for turn in result.turns] == [None, None]
    assert result.error == "internal: gone"


def test_hanging_up_early_ends_the_call_once_the_reply_was_heard() -> None:
    target = ScriptedTarget([LONG])
    result = call(target, script_with(hang_up_after_turn=1))
    assert len(result.turns) == 1
    assert only_call(target).closed_s == pytest.approx(11.0)


def test_a_call_that_is_not_taken_is_on_record() -> None:
    refused = AtCapacityError("all lines are busy")
    target = ScriptedTarget([SHORT], open_error=lambda _: refused)
    assert call(target).error == "at_capacity: all lines are busy"


def test_a_reply_that_fails_ends_the_call_and_keeps_what_was_heard() -> None:
    target = ScriptedTarget([[(0.5, "Yes. "), (1.0, EngineDeadError("gone"))]])
    result = call(target)
    (turn,) = result.turns
    assert (turn.error, turn.text) == ("internal: gone", "Yes. ")
    assert [turn.first_speech_ms, turn.total_ms] == pytest.approx([500, 1500])
    assert only_call(target).closed_s == pytest.approx(8.5)


def test_a_failure_before_the_first_sentence_is_no_speech() -> None:
    result = call(ScriptedTarget([[(0.5, "Yes"), (1.0, EngineDeadError("gone"))]]))
    assert result.turns[0].first_token_ms == pytest.approx(500)
    assert result.turns[0].first_speech_ms is None


def test_a_failure_to_close_keeps_the_turns() -> None:
    result = call(ScriptedTarget([SHORT], close_error=EngineDeadError("gone")))
    assert (len(result.turns), result.error) == (2, "internal: gone")


def test_an_empty_reply_is_silence_and_no_error() -> None:
    result = call(ScriptedTarget([[], SHORT]))
    first, second = result.turns
    assert (first.first_token_ms, first.first_speech_ms, first.total_ms) == (None, None, 0.0)
    assert (first.error, second.text) == (None, "Evet.")


def test_a_bug_in_a_target_is_raised_after_the_call_was_closed() -> None:
    target = ScriptedTarget([SHORT], hint_error=KeyError("bug"))
    with pytest.raises(KeyError):
        call(target)
    assert only_call(target).closed_s is not None


@pytest.mark.parametrize(
    ("until_s", "turns", "hints", "ended_s"),
    [
        (4.0, 0, 2, 4.0),  # while speaking
        (8.0, 1, 3, 10.5),  # while the reply comes: it is waited for
        (10.7, 1, 3, 10.7),  # while listening
        (12.0, 1, 3, 12.0),  # while thinking
    ],
)
def test_when_time_is_up_the_caller_asks_no_more(until_s: float, turns: int, hints: int, ended_s: float) -> None:
    target = ScriptedTarget([LONG, SHORT])
    result = call(target, until_s=until_s)
    assert len(result.turns) == turns
    assert len(only_call(target).hints) == hints
    assert result.ended_s == pytest.approx(ended_s)
    assert result.errors == ()


@pytest.mark.parametrize("after_s", [0.5, 2.0, 8.5, 10.8])
def test_a_cancelled_caller_hangs_up(after_s: float) -> None:
    """While it is opened, while speaking, while the reply comes, while listening."""
    target = ScriptedTarget([LONG], open_s=1.0, hint_s=1000.0)

    async def main() -> None:
        caller = asyncio.create_task(Caller(SCRIPT, target, "c1", clock=now, sleep=asyncio.sleep).run())
        await asyncio.sleep(after_s)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtually(main)
    assert [heard.closed_s for heard in target.calls] == ([pytest.approx(after_s)] if after_s > 1 else [])
    assert sum(heard.stopped_turns for heard in target.calls) == (1 if 8 < after_s < 11.5 else 0)
