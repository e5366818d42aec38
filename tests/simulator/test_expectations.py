"""Each kind of expectation is met and missed as the person who wrote it would expect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.events import ToolCall
from voice_llm.simulator import CallResult, RunResult, TurnResult
from voice_llm.simulator.expectations import Observed, Outcome, Verdict, expectations_of, judge
from voice_llm.simulator.judged import judge_run, judge_turn
from voice_llm.simulator.scenario import Expectation, Scenario

pytestmark = pytest.mark.unit

WORDS = st.lists(st.text("abcçgğıiklmnoöprsştuüyz", min_size=1, max_size=8), min_size=1, max_size=12)
BOOKED = ("book_room", {"room": "double", "nights": 2})


def expect(**fields: Any) -> Expectation:
    return Expectation.model_validate_json(Expectation(**fields).model_dump_json(exclude_unset=True))


def verdicts(expectation: Expectation, text: str = "", *, language: str = "en", **seen: Any) -> tuple[Verdict, ...]:
    return judge(expectation, Observed(text, **seen), language)


def passes(expectation: Expectation, text: str = "", *, language: str = "en", **seen: Any) -> bool:
    outcomes = {verdict.outcome for verdict in verdicts(expectation, text, language=language, **seen)}
    assert Outcome.NOT_JUDGED not in outcomes
    return outcomes == {Outcome.PASSED}


def scenario(*turns: dict[str, Any], **fields: Any) -> Scenario:
    return Scenario.model_validate_json(json.dumps({"name": "s", "turns": turns, **fields}))


def result(text: str = "Yes.", **fields: Any) -> TurnResult:
    timed = {"first_token_ms": 100.0, "first_speech_ms": 300.0} if text else {}
    given: dict[str, Any] = {"call_id": "c", "turn": 0, "asked_s": 1.0, "total_ms": 900.0, "text": text, **timed}
    return TurnResult(**given | fields)


def test_any_reply_will_do_where_nothing_else_is_said() -> None:
    assert passes(Expectation(), "Yes.")
    assert passes(Expectation(), "", calls=(BOOKED,))
    assert not passes(Expectation(), " \n ")


def test_words_are_found_whatever_their_capitals_and_spaces() -> None:
    assert passes(expect(text_contains=("excess of 150",)), "The  Excess\nOF 150 euros.")
    assert not passes(expect(text_contains=("excess of 150",)), "The excess is 150 euros.")


def test_all_words_have_to_be_there_and_each_is_told() -> None:
    found = verdicts(expect(text_contains=("Monday", "nine")), "On Monday.")
    assert [(verdict.expected, verdict.outcome.value) for verdict in found] == [
        ("a reply", "passed"),
        ("contains 'Monday'", "passed"),
        ("contains 'nine'", "failed"),
    ]
    assert found[2].found == "'On Monday.'"
    assert found[1].found == ""


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ("istanbul", "İSTANBUL'a gidiyor."),
        ("İstanbul", "istanbul'a gidiyor."),
        ("ısı", "ISI kaybı var."),
        ("ISPARTA", "Isparta'ya ulaştı."),
        ("ığdır", "IĞDIR otobüsü"),
        ("perşembe", "PERŞEMBE günü"),
        ("çok üşüdü", "ÇOK  ÜŞÜDÜ"),
    ],
)
def test_turkish_capitals_are_those_of_turkish(wanted: str, text: str) -> None:
    assert passes(expect(text_contains=(wanted,)), text, language="tr")
    assert passes(expect(text_contains=(wanted,)), text, language="tr-TR")
    assert not passes(expect(text_excludes=(wanted,)), text, language="tr")


def test_a_turkish_dotless_i_is_another_letter() -> None:
    assert not passes(expect(text_contains=("ısı",)), "isi", language="tr")
    assert passes(expect(text_excludes=("sıkıntı",)), "SİKİNTİ", language="tr")
    assert passes(expect(text_contains=("INTERNET",)), "internet", language="en")


def test_none_of_the_excluded_words_may_be_there() -> None:
    unwanted = expect(text_excludes=("<|", "http"))
    assert passes(unwanted, "All is well.")
    assert not passes(unwanted, "See HTTP://example.org.")
    assert not passes(unwanted, "<|im_end|>")


def test_silence_is_no_reply_without_the_excluded_words() -> None:
    assert not passes(expect(text_excludes=("http",)), "")


def test_a_pattern_is_found_anywhere_whatever_its_capitals() -> None:
    assert passes(expect(text_matches=r"call(s|ed)? (you )?back"), "A colleague CALLS YOU BACK.")
    assert not passes(expect(text_matches=r"^\d+$"), "It is 150.")
    assert passes(expect(text_matches="salı|perşembe"), "PERŞEMBE", language="tr")


def test_words_are_counted_as_people_count_them() -> None:
    reply = "It's 10.30 o'clock, Mr Smith-Jones, 1,290 euros."
    assert passes(expect(max_words=7), reply)
    assert not passes(expect(max_words=6), reply)
    assert verdicts(expect(max_words=6), reply)[1].found == "7 words"


def test_sentences_are_counted_as_they_are_spoken() -> None:
    reply = "It is 104.50 euros, Mr. Holt. Shall I book it? Of course!"
    assert passes(expect(max_sentences=3), reply)
    assert not passes(expect(max_sentences=2), reply)
    assert passes(expect(max_sentences=1), "Saat 10.30'da, 3. katta olacak", language="tr")


def test_a_reply_has_to_be_heard_in_time() -> None:
    quick = expect(within_ms=800)
    assert passes(quick, "Yes.", first_speech_ms=800.0)
    assert not passes(quick, "Yes.", first_speech_ms=801.0)
    (_, late) = verdicts(quick, "Yes.", first_speech_ms=1234.5)
    assert (late.expected, late.found) == ("heard within 800 ms", "1234 ms")
    (_, never) = verdicts(quick, "")
    assert (never.outcome, never.found) == (Outcome.FAILED, "never")


def test_times_are_not_judged_where_persons_hurry_but_silence_is() -> None:
    (replied, timed) = verdicts(expect(within_ms=800), "Yes.", first_speech_ms=9000.0, times_count=False)
    assert (replied.outcome, timed.outcome) == (Outcome.PASSED, Outcome.NOT_JUDGED)
    assert "hurried" in timed.found
    assert not passes(expect(within_ms=800), "", times_count=False)


def test_of_what_is_absent_nothing_may_come() -> None:
    nothing = expect(absent=True)
    assert passes(nothing, "")
    assert not passes(nothing, "Are you still there?")
    assert not passes(nothing, "", calls=(BOOKED,))


@pytest.mark.parametrize(
    ("args", "met"),
    [
        ({}, True),
        ({"nights": 2}, True),
        ({"nights": 2, "room": "double"}, True),
        ({"nights": 3}, False),
        ({"nights": "2"}, False),
        ({"guests": 2}, False),
    ],
)
def test_a_tool_has_to_be_called_with_these_arguments_and_others_do_no_harm(args: dict[str, Any], *, met: bool) -> None:
    expected = expect(event="function_call", calls=({"name": "book_room", "args": args},))
    assert passes(expected, calls=(("check", {"nights": 2}), BOOKED)) is met
    assert not passes(expected, "I have booked it for you.")
    assert not passes(expected, calls=(("cancel_room", BOOKED[1]),))


def test_each_of_several_tools_has_to_be_called_in_any_order() -> None:
    both = expect(event="function_call", calls=({"name": "check"}, {"name": "book_room", "args": {"nights": 2}}))
    assert passes(both, calls=(BOOKED, ("check", {})))
    missed = verdicts(both, calls=(("check", {}),))
    assert [(verdict.expected, verdict.outcome.value) for verdict in missed] == [
        ("check() is called", "passed"),
        ("book_room(nights=2) is called", "failed"),
    ]
    assert missed[1].found == "check"


def test_any_tool_or_no_tool_can_be_expected() -> None:
    assert passes(expect(event="function_call"), calls=(BOOKED,))
    assert not passes(expect(event="function_call"), "Yes.")
    assert passes(expect(event="function_call", absent=True), "Yes.")
    (called,) = verdicts(expect(event="function_call", absent=True), calls=(BOOKED,))
    assert (called.outcome, called.found) == (Outcome.FAILED, "book_room")


def test_the_bot_has_to_stop_when_the_caller_speaks_into_it() -> None:
    stops = expect(event="bot_interrupted", within_ms=500)
    assert passes(stops, "Yes.", interrupted_ms=0.0)
    assert passes(stops, "", interrupted_ms=500.0)
    assert not passes(stops, "Yes.", interrupted_ms=501.0)
    (nobody,) = verdicts(stops, "Yes.")
    assert (nobody.outcome, nobody.found) == (Outcome.FAILED, "nobody spoke into it")
    assert passes(expect(event="bot_interrupted"), interrupted_ms=9e9)
    (_, hurried) = verdicts(stops, interrupted_ms=9e9, times_count=False)
    assert hurried.outcome is Outcome.NOT_JUDGED


def test_that_nobody_speaks_into_it_can_be_expected() -> None:
    assert passes(expect(event="bot_interrupted", absent=True), "Yes.")
    assert not passes(expect(event="bot_interrupted", absent=True), "Yes.", interrupted_ms=0.0)


def test_what_only_a_judge_can_tell_is_not_judged_and_fails_nothing() -> None:
    (_, judged) = verdicts(expect(eval="The reply is friendly."), "Go away.")
    assert (judged.expected, judged.outcome) == ("The reply is friendly.", Outcome.NOT_JUDGED)
    assert not judged.fails_run


def test_of_a_reply_that_is_known_as_sound_only_its_time_is_judged() -> None:
    wanted = expect(text_contains=("yes",), max_words=3, within_ms=800)
    found = verdicts(wanted, "", first_speech_ms=700.0, words_known=False)
    assert [verdict.outcome.value for verdict in found] == ["passed", "passed", "not judged", "not judged"]
    assert "sound only" in found[2].found
    assert not passes(Expectation(), "", words_known=False)
    assert not passes(expect(absent=True), "", words_known=False, first_speech_ms=700.0)
    (tool,) = verdicts(expect(event="function_call"), words_known=False)
    assert tool.outcome is Outcome.NOT_JUDGED


def test_what_needs_a_better_model_is_told_and_fails_no_run() -> None:
    gates, better = (
        verdicts(Expectation(text_contains=("150",), needs_better_model=better), "Hm.")[1] for better in (False, True)
    )
    assert gates.outcome is better.outcome is Outcome.FAILED
    assert (gates.fails_run, better.fails_run) == (True, False)


@given(WORDS, st.data())
def test_what_is_in_a_reply_is_found_in_any_capitals_and_with_any_spaces(words: list[str], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(words) - 1))
    part = " ".join(words[begin : data.draw(st.integers(begin + 1, len(words)))])
    spaced = data.draw(st.sampled_from([" ", "  ", "\n", "\t "])).join(words)
    turkish = spaced.replace("i", "İ").replace("ı", "I").upper()
    assert passes(expect(text_contains=(part,)), turkish, language="tr")
    assert not passes(expect(text_excludes=(part,)), turkish, language="tr")


@given(WORDS)
def test_a_limit_of_words_is_met_exactly_up_to_it(words: list[str]) -> None:
    text = ", ".join(words) + "."
    assert passes(expect(max_words=len(words)), text)
    assert len(words) == 1 or not passes(expect(max_words=len(words) - 1), text)


@given(st.text(max_size=60), st.text(min_size=1, max_size=10), st.sampled_from(["tr", "en"]))
def test_words_are_either_contained_or_excluded(text: str, words: str, language: str) -> None:
    contains, excludes = (
        passes(expect(**{name: (words,)}), text, language=language, calls=(BOOKED,))
        for name in ("text_contains", "text_excludes")
    )
    assert contains is not excludes


def test_what_every_reply_has_to_be_counts_for_those_that_are_heard_to_the_end() -> None:
    called = scenario(
        {"user": "Hello?", "expect": [{"max_words": 9}]},
        {"user": "Wait.", "expect": [{"absent": True}]},
        every_reply=[{"max_sentences": 2}],
    )
    first, second = called.turns
    shared, own = called.every_reply[0], first.expect[0]
    assert expectations_of(called, first, cut_short=False) == (shared, own)
    assert expectations_of(called, first, cut_short=True) == (own,)
    assert expectations_of(called, second, cut_short=False) == second.expect


def test_a_turn_is_held_against_its_place_in_the_scenario() -> None:
    called = scenario(
        {"user": "Hello?", "expect": [{"text_contains": "hello"}]},
        {"user": "Bye.", "expect": [{"text_contains": "bye"}]},
        every_reply=[{"within_ms": 500}],
    )
    assert not judge_turn(result("Hello!"), called).fails_run
    assert judge_turn(result("Hello!", turn=1), called).fails_run
    assert judge_turn(result("Hello!", first_speech_ms=501.0), called).fails_run
    assert not judge_turn(result("Hello!", first_speech_ms=501.0), called, times_count=False).fails_run
    assert not judge_turn(result("Hello!", first_speech_ms=501.0, stopped_ms=0.0), called).fails_run


def test_a_turn_that_failed_misses_one_thing_whatever_was_expected() -> None:
    called = scenario({"user": "Hello?", "expect": [{"text_contains": "hello", "needs_better_model": True}]})
    (verdict,) = judge_turn(result("", error="engine_dead: gone"), called).verdicts
    assert (verdict.expected, verdict.found, verdict.fails_run) == ("the turn is answered", "engine_dead: gone", True)


def test_silence_is_not_expected_to_be_answered() -> None:
    called = scenario({"user": "Hello?"}, {"silence_ms": 300}, every_reply=[{"max_words": 9}])
    assert judge_turn(result("", turn=1, total_ms=0.0), called).verdicts == ()


def test_tools_of_a_turn_are_judged_by_name_and_arguments() -> None:
    wanted = {"event": "function_call", "calls": [{"name": "book_room", "args": {"nights": 2}}]}
    called = scenario({"user": "Book it.", "expect": [wanted]}, tools=[{"name": "book_room"}])
    booked = ToolCall(tool_call_id="call_1", name="book_room", arguments=BOOKED[1])
    assert not judge_turn(result(tool_calls=(booked,)), called).fails_run
    assert judge_turn(result(), called).fails_run


def test_of_calls_without_a_scenario_nothing_is_expected() -> None:
    called = scenario({"user": "Hello?", "expect": [{"text_contains": "hello"}]})
    calls = [CallResult(call_id="c", script=name, started_s=0.0, ended_s=9.0, turns=(result(),)) for name in "sx"]
    judged = judge_run(RunResult(concurrent=1, wall_s=9.0, calls=tuple(calls)), [called])
    assert [turn.scenario for turn in judged.turns] == ["s"]
    assert [turn.fails_run for turn in judged.failed] == [True]
    assert [judged.count(outcome) for outcome in (Outcome.PASSED, Outcome.FAILED)] == [1, 1]
    assert judged.count(Outcome.FAILED, gates=False) == 0
