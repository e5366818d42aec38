"""Callers who break in, hang up and say nothing: 1 word a second, 10 characters a second are heard, 2 s to think."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest

from voice_llm.errors import EngineDeadError, VoiceLLMError
from voice_llm.events import ToolCall
from voice_llm.simulator import Caller, CallerTurn, CallResult, CallScript, ChatMessages
from voice_llm.simulator.script import Moment

from .fakes import Heard, Pieces, ScriptedCall, ScriptedTarget, now, virtually

pytestmark = pytest.mark.unit

# Asked at 2 s. "Yes. That" is heard from 2.5 to 3.4 s, " is so. " from 3.5 to 4.3 s, "Good." from 5.5 to 6 s.
LONG: Pieces = [(0.25, "Yes."), (0.25, " That"), (1.0, " is so. "), (2.0, "Good.")]
SHORT: Pieces = [(0.5, "Evet.")]
# Complete at 2.5 s, heard until 5.5 s.
AT_ONCE: Pieces = [(0.5, "Elbette, hemen bakıyorum, evet")]
QUESTION = {"role": "user", "content": "one two"}
TOOL_CALL = ToolCall("9f3a", "find_room", {"nights": 2})


@dataclass
class Assistant(ScriptedTarget):
    """A target that also calls tools, and takes its time to stop.

    Attributes:
        asks: What each turn asks of tools once it was spoken, over and over.
        runs_tools: Whether it has the results already.
        stop_s: How long a reply that is given up takes to end.
        interrupt_error: Why it cannot be interrupted.
    """

    asks: Sequence[tuple[ToolCall, ...]] = ((),)
    runs_tools: bool = False
    stop_s: float = 0.0
    interrupt_error: VoiceLLMError | None = None

    async def open(self, script: CallScript, call_id: str) -> AssistantCall:
        await super().open(script, call_id)
        return AssistantCall(self, self.calls[-1])


class AssistantCall(ScriptedCall):
    def __init__(self, assistant: Assistant, heard: Heard) -> None:
        super().__init__(assistant, heard)
        self._assistant = assistant
        self.runs_tools = assistant.runs_tools

    async def turn(self, messages: ChatMessages, max_tokens: int | None) -> AsyncGenerator[str, None]:
        self.tool_calls = ()
        asks = self._assistant.asks[len(self._heard.turns) % len(self._assistant.asks)]
        try:
            async with aclosing(super().turn(messages, max_tokens)) as pieces:
                async for piece in pieces:
                    yield piece
        except (asyncio.CancelledError, GeneratorExit):
            await asyncio.sleep(self._assistant.stop_s)
            raise
        self.tool_calls = asks

    async def interrupt(self, spoken: str) -> None:
        await super().interrupt(spoken)
        if self._assistant.interrupt_error is not None:
            raise self._assistant.interrupt_error


def script(*turns: CallerTurn, **options: Any) -> CallScript:
    plain: dict[str, Any] = {"speaking_wpm": 60, "think_s": 2.0, "listen_chars_per_s": 10.0, "partials": False}
    return CallScript(turns=turns, prefill_on_open=False, **(plain | options))


def breaking_in(starts: Moment | None) -> CallScript:
    return script(CallerTurn("one two"), CallerTurn("bir iki", starts=starts))


def hanging_up(moment: Moment) -> CallScript:
    return script(CallerTurn("one two", hangs_up=moment))


def call(target: ScriptedTarget, calling: CallScript) -> CallResult:
    async def main() -> CallResult:
        result = await Caller(calling, target, "c1", clock=now, sleep=asyncio.sleep).run()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    return virtually(main)


def only_call(target: ScriptedTarget) -> Heard:
    (heard,) = target.calls
    return heard


def told_of_breaking_in(target: ScriptedTarget) -> tuple[object, str]:
    """When, and what was heard."""
    ((at_s, spoken),) = only_call(target).interrupted
    return at_s, spoken


def asked(target: ScriptedTarget, turn: int) -> ChatMessages:
    return only_call(target).turns[turn][1]


def test_reply_is_broken_off_where_the_caller_begins_to_speak() -> None:
    target = Assistant([LONG, SHORT])
    result = call(target, breaking_in(Moment("first_speech", 1.25)))
    first, second = result.turns
    assert (first.text, first.heard) == ("Yes. That is so. ", "Yes. That i")
    assert [first.total_ms, first.stopped_ms] == pytest.approx([1750, 0])
    assert first.heard_until_s == pytest.approx(3.75)
    assert [second.spoke_s, second.asked_s] == pytest.approx([3.75, 5.75])
    assert second.text == second.heard == "Evet."
    assert told_of_breaking_in(target) == (pytest.approx(3.75), "Yes. That i")
    assert only_call(target).stopped_turns == 1
    assert result.errors == ()


def test_next_turn_knows_only_what_was_heard() -> None:
    target = Assistant([LONG, SHORT])
    call(target, breaking_in(Moment("first_speech", 1.25)))
    assert asked(target, 1) == [
        QUESTION,
        {"role": "assistant", "content": "Yes. That i"},
        {"role": "user", "content": "bir iki"},
    ]


def test_how_long_the_reply_went_on_is_told_of_it_and_of_the_turn_that_broke_in() -> None:
    first, second = call(Assistant([LONG, SHORT], stop_s=0.3), breaking_in(Moment("first_speech", 1.25))).turns
    assert [first.stopped_ms, second.interrupted_ms] == pytest.approx([300, 300])
    assert (first.interrupted_ms, second.stopped_ms) == (None, None)
    assert first.total_ms == pytest.approx(1750)


@pytest.mark.parametrize("chars_per_s", [3.0, 7.0, 10.0, 15.0, 17.3])
def test_caller_who_waits_for_a_word_has_heard_it(chars_per_s: float) -> None:
    target = Assistant([[(0.3, "It costs 300 euros a week, with breakfast.")], SHORT])
    calling = replace(breaking_in(Moment("word", word="EUROS")), listen_chars_per_s=chars_per_s)
    first, second = call(target, calling).turns
    assert first.heard == "It costs 300 euros"
    assert second.spoke_s == pytest.approx(2.3 + 18 / chars_per_s)


def test_word_that_comes_late_is_waited_for() -> None:
    target = Assistant([LONG, SHORT])
    first, second = call(target, breaking_in(Moment("word", 0.25, "so"))).turns
    # "Yes. That is so" is heard at 3.5 + 0.6 s, and two characters more by 4.35 s.
    assert second.spoke_s == pytest.approx(4.35)
    assert first.heard == "Yes. That is so. "


def test_caller_who_speaks_at_the_first_token_has_heard_nothing() -> None:
    target = Assistant([LONG, SHORT])
    first, second = call(target, breaking_in(Moment("first_token", 0.1))).turns
    assert (first.text, first.heard, first.first_speech_ms) == ("Yes.", "", None)
    assert first.total_ms == pytest.approx(350)
    assert second.interrupted_ms == 0
    assert told_of_breaking_in(target) == (pytest.approx(2.35), "")
    assert asked(target, 1) == [QUESTION, {"role": "user", "content": "bir iki"}]


@pytest.mark.parametrize("delay_s", [0.0, 0.1])
def test_caller_who_does_not_wait_for_any_text_breaks_in(delay_s: float) -> None:
    target = Assistant([LONG, SHORT])
    first, second = call(target, breaking_in(Moment("asked", delay_s))).turns
    assert (first.text, first.first_token_ms, first.error) == ("", None, None)
    assert [first.total_ms, second.asked_s] == pytest.approx([delay_s * 1e3, 4 + delay_s])


@pytest.mark.parametrize(
    "moment", [Moment("first_speech", 60.0), Moment("word", word="never"), Moment("word", 3.0, "so")]
)
def test_reply_that_was_heard_before_the_moment_is_not_broken_off(moment: Moment) -> None:
    target = Assistant([LONG, SHORT])
    first, second = call(target, breaking_in(moment)).turns
    assert first.heard == first.text == "Yes. That is so. Good."
    assert (first.stopped_ms, second.interrupted_ms) == (None, None)
    # As without a moment: heard at 6 s, thought until 8 s.
    assert second.spoke_s == pytest.approx(8.0)
    assert only_call(target).interrupted == []
    assert only_call(target).stopped_turns == 0


def test_reply_that_is_complete_and_still_played_is_broken_off() -> None:
    target = Assistant([AT_ONCE, SHORT])
    first, second = call(target, breaking_in(Moment("first_speech", 1.25))).turns
    assert (first.text, first.heard) == (AT_ONCE[0][1], "Elbette, hem")
    assert [first.stopped_ms, second.interrupted_ms] == [0, 0]
    assert second.spoke_s == pytest.approx(3.75)
    assert asked(target, 1)[1] == {"role": "assistant", "content": "Elbette, hem"}
    assert only_call(target).stopped_turns == 0


def test_words_that_wait_to_be_played_have_not_been_heard() -> None:
    pieces: Pieces = [(0.5, "Yes. "), *[(0.01, f"word{n} ") for n in range(40)]]
    first, _ = call(Assistant([pieces, SHORT]), breaking_in(Moment("first_speech", 1.25))).turns
    assert first.heard == "Yes. word0 w"
    assert first.unheard_words == 38


def test_target_is_told_what_was_heard_of_a_reply_that_it_has_completed() -> None:
    """It may keep the history itself, and would take the caller to have heard all of it."""
    target = Assistant([AT_ONCE, SHORT])
    call(target, breaking_in(Moment("first_speech", 1.25)))
    assert told_of_breaking_in(target) == (pytest.approx(3.75), "Elbette, hem")


def test_caller_breaks_into_one_reply_after_another() -> None:
    target = Assistant([LONG])
    starts = Moment("first_speech", 0.25)
    result = call(target, script(CallerTurn("one two"), *[CallerTurn("bir iki", starts=starts)] * 2))
    assert [turn.heard for turn in result.turns] == ["Ye", "Ye", "Yes. That is so. Good."]
    assert [turn.interrupted_ms for turn in result.turns] == [None, 0, 0]


@pytest.mark.parametrize(
    ("moment", "ended_s", "heard"),
    [
        (Moment("first_speech", 1.25), 3.75, "Yes. That i"),
        (Moment("first_token", 0.1), 2.35, ""),
        (Moment("asked", 0.1), 2.1, ""),
    ],
)
def test_caller_hangs_up_in_the_middle_of_a_reply(moment: Moment, ended_s: float, heard: str) -> None:
    target = Assistant([LONG])
    result = call(target, hanging_up(moment))
    (turn,) = result.turns
    assert (turn.heard, turn.stopped_ms) == (heard, 0)
    assert only_call(target).closed_s == pytest.approx(ended_s)
    assert only_call(target).stopped_turns == 1
    assert result.errors == ()


def test_caller_who_wants_to_hang_up_later_hears_the_reply_out() -> None:
    target = Assistant([LONG])
    (turn,) = call(target, hanging_up(Moment("first_speech", 60.0))).turns
    assert (turn.heard, turn.stopped_ms) == ("Yes. That is so. Good.", None)
    assert only_call(target).closed_s == pytest.approx(6.0)


def test_silence_asks_for_nothing_and_hints_at_nothing() -> None:
    target = Assistant([SHORT])
    turns = (CallerTurn("one two"), CallerTurn(silence_s=5.0), CallerTurn("bir iki", think_s=0.0))
    result = call(target, script(*turns, partials=True))
    first, silence, last = result.turns
    # Heard at 3 s, thought until 5 s, silent until 10 s.
    assert [silence.spoke_s, silence.asked_s, silence.total_ms] == pytest.approx([5.0, 10.0, 0.0])
    assert (silence.said, silence.text, silence.first_token_ms, silence.error) == ("", "", None, None)
    assert [first.turn, silence.turn, last.turn] == [0, 1, 2]
    assert last.asked_s == pytest.approx(12.0)
    assert len(only_call(target).turns) == 2
    assert only_call(target).hints == []
    assert asked(target, 1) == [QUESTION, {"role": "assistant", "content": "Evet."}, last_words()]


def last_words() -> dict[str, str]:
    return {"role": "user", "content": "bir iki"}


def test_tools_return_what_the_scenario_says_and_the_reply_goes_on() -> None:
    target = Assistant([[(0.25, "Bir bakayım. ")], SHORT], asks=[(TOOL_CALL,), ()])
    calling = script(CallerTurn("one two"), CallerTurn("bir iki"), tool_results={"find_room": {"oda": "çift"}})
    first, second = call(target, calling).turns
    written = {"id": "9f3a", "type": "function", "function": {"name": "find_room", "arguments": {"nights": 2}}}
    called = [
        {"role": "assistant", "content": "", "tool_calls": [written]},
        {"role": "tool", "tool_call_id": "9f3a", "content": '{"oda": "çift"}'},
    ]
    assert asked(target, 1) == [QUESTION, *called]
    assert first.text == "Bir bakayım. Evet."
    assert first.tool_calls == (ToolCall("call_1", "find_room", {"nights": 2}),)
    assert first.total_ms == pytest.approx(750)
    assert asked(target, 2) == [
        QUESTION,
        *called,
        {"role": "assistant", "content": "Bir bakayım. Evet."},
        last_words(),
    ]
    assert second.said == "bir iki"


def test_tool_that_the_scenario_does_not_know_returns_nothing() -> None:
    target = Assistant([SHORT], asks=[(TOOL_CALL, ToolCall("b", "pay", {})), ()])
    (turn,) = call(target, script(CallerTurn("one two"), tool_results={"pay": [1]})).turns
    results = [json.loads(message["content"]) for message in asked(target, 1) if message["role"] == "tool"]
    assert results == [None, [1]]
    assert [(tool.tool_call_id, tool.name) for tool in turn.tool_calls] == [("call_1", "find_room"), ("call_2", "pay")]


def test_model_that_calls_tools_over_and_over_is_stopped() -> None:
    target = Assistant([[]], asks=[(TOOL_CALL,)])
    (turn,) = call(target, script(CallerTurn("one two"))).turns
    assert len(only_call(target).turns) == len(turn.tool_calls) == 4
    assert turn.error is None


def test_target_that_runs_tools_itself_is_asked_once() -> None:
    target = Assistant([SHORT], asks=[(TOOL_CALL,)], runs_tools=True)
    (turn,) = call(target, script(CallerTurn("one two"))).turns
    assert len(only_call(target).turns) == len(turn.tool_calls) == 1


def test_caller_breaks_in_after_a_tool_was_called() -> None:
    """The tools that were used and what was heard of the words about them stay."""
    target = Assistant([[(0.5, "Evet. ")], LONG, SHORT], asks=[(TOOL_CALL,), (), ()])
    first, second = call(target, breaking_in(Moment("word", 0.05, "Yes"))).turns
    # "Evet. " is heard from 2.5 s, "Yes. That" after it, from 3.1 to 4.0 s.
    assert [message["role"] for message in asked(target, 2)] == ["user", "assistant", "tool", "assistant", "user"]
    assert asked(target, 2)[3]["content"] == first.heard == "Evet. Yes"
    assert len(first.tool_calls) == 1
    assert second.interrupted_ms == 0


@pytest.mark.parametrize("moment", [Moment("first_speech", 60.0), Moment("word", word="never")])
def test_failure_before_the_caller_breaks_in_ends_the_call(moment: Moment) -> None:
    target = Assistant([[(0.5, "Yes. "), (1.0, EngineDeadError("gone"))]])
    result = call(target, breaking_in(moment))
    (turn,) = result.turns
    assert (turn.error, turn.text, turn.stopped_ms) == ("internal: gone", "Yes. ", None)
    assert only_call(target).closed_s == pytest.approx(3.5)


def test_failure_while_the_caller_still_listens_is_not_lost_when_they_break_in() -> None:
    target = Assistant([[(0.5, "Elbette, hemen bakıyorum. "), (0.5, EngineDeadError("gone"))], SHORT])
    result = call(target, breaking_in(Moment("first_speech", 1.25)))
    assert result.errors == ("internal: gone",)
    assert len(result.turns) == 1


def test_failure_after_the_caller_broke_in_is_not_the_replys() -> None:
    target = Assistant([[(0.5, "Yes, that is so. "), (5.0, EngineDeadError("gone"))], SHORT])
    assert call(target, breaking_in(Moment("first_speech", 1.25))).errors == ()


def test_target_that_cannot_be_interrupted_fails_the_turn_and_is_hung_up_on() -> None:
    target = Assistant([LONG, SHORT], interrupt_error=EngineDeadError("gone"))
    result = call(target, breaking_in(Moment("first_speech", 1.25)))
    (turn,) = result.turns
    assert (turn.error, turn.heard, turn.stopped_ms) == ("internal: gone", "Yes. That i", None)
    assert only_call(target).stopped_turns == 1
    assert only_call(target).closed_s == pytest.approx(3.75)


@pytest.mark.parametrize("after_s", [2.3, 3.0, 4.0])
def test_cancelled_caller_hangs_up_whatever_the_reply_does(after_s: float) -> None:
    """While it comes, while it is listened to, while it stops."""
    target = Assistant([LONG, SHORT], stop_s=1.0)

    async def main() -> None:
        calling = breaking_in(Moment("first_speech", 1.25))
        caller = asyncio.create_task(Caller(calling, target, "c1", clock=now, sleep=asyncio.sleep).run())
        await asyncio.sleep(after_s)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtually(main)
    assert len(only_call(target).turns) == 1
    assert only_call(target).closed_s is not None
