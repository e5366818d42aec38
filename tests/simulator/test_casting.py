"""Scenarios become calls: each as often as the others, by persons who differ, the same for the same seed."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.simulator.scenario import Scenario, cast, script_of
from voice_llm.simulator.script import CallerTurn, CallScript, Moment, ScriptedReply

pytestmark = pytest.mark.unit


def scenario(name: str = "s", **fields: Any) -> Scenario:
    return Scenario.model_validate_json(json.dumps({"name": name, "turns": [{"user": "Hello?"}], **fields}))


def calls(scenarios: list[Scenario], count: int, *, seed: int = 0) -> list[CallScript]:
    return list(islice(cast(scenarios, seed=seed), count))


def turn(fields: dict[str, Any]) -> CallerTurn:
    return script_of(scenario(turns=[{"user": "Hello?"}, fields], tools=[{"name": "book"}])).turns[1]


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_each_scenario_is_called_as_often_as_the_others(scenarios: int, rounds: int, seed: int) -> None:
    names = [f"s{number}" for number in range(scenarios)]
    cast_names = [call.name for call in calls([scenario(n) for n in names], scenarios * rounds, seed=seed)]
    assert Counter(cast_names) == dict.fromkeys(names, rounds)
    assert set(cast_names[:scenarios]) == set(names)


def test_the_same_seed_gives_the_same_calls() -> None:
    scenarios = [scenario(name) for name in "abcde"]
    assert calls(scenarios, 40, seed=3) == calls(scenarios, 40, seed=3)
    assert calls(scenarios, 40, seed=3) != calls(scenarios, 40, seed=4)


def test_the_order_is_not_that_of_the_files_each_time() -> None:
    names = [call.name for call in calls([scenario(name) for name in "abcde"], 50)]
    assert len({tuple(names[begin : begin + 5]) for begin in range(0, 50, 5)}) > 3


def test_persons_differ_around_what_the_scenario_says() -> None:
    said = scenario(caller={"speaking_wpm": 100, "think_s": 1.0})
    cast_calls = calls([said], 300)
    speeds = [call.speaking_wpm for call in cast_calls]
    thoughts = [call.think_s for call in cast_calls]
    assert 85 <= min(speeds) < 90 < 110 < max(speeds) <= 115
    assert 0.6 <= min(thoughts) < 0.8 < 1.3 < max(thoughts) <= 1.6
    assert len(set(speeds)) == 300


def test_a_call_has_what_the_scenario_tells() -> None:
    told = scenario(
        language="tr",
        system_prompt="Kısa cevap ver.",
        context=[{"role": "assistant", "content": "Merhaba."}],
        facts=["Bir.", "İki."],
        tools=[{"name": "book", "description": "Books.", "parameters": {"type": "object"}, "result": {"ok": True}}],
        caller={"speaking_wpm": 90, "think_s": 2.0, "mishears": 0.5, "noise_snr_db": 6},
        max_tokens=40,
    )
    script = script_of(told)
    assert (script.name, script.language, script.system_prompt) == ("s", "tr", "Kısa cevap ver.")
    assert [dict(message) for message in script.history] == [{"role": "assistant", "content": "Merhaba."}]
    assert script.rag_context == "Bir.\nİki."
    function = {"name": "book", "description": "Books.", "parameters": {"type": "object"}}
    assert [dict(tool) for tool in script.tools] == [{"type": "function", "function": function}]
    assert script.tool_results == {"book": {"ok": True}}
    assert (script.speaking_wpm, script.think_s, script.mishears, script.noise_snr_db) == (90, 2.0, 0.5, 6)
    assert [turn.max_tokens for turn in script.turns] == [40]


def test_nothing_told_is_nothing_said() -> None:
    script = script_of(scenario())
    assert (script.rag_context, script.history, script.tools, script.tool_results) == (None, (), (), {})
    assert (script.turns[0].starts, script.turns[0].hangs_up, script.turns[0].reply) == (None, None, None)


def test_pauses_come_after_the_words_before_them() -> None:
    paused = turn({"user": [{"pause_ms": 200}, "Well, let me", {"pause_ms": 800}, "think", {"pause_ms": 1500}, "yes."]})
    assert paused.text == "Well, let me think yes."
    assert paused.pauses == ((0, 0.2), (3, 0.8), (4, 1.5))


def test_silence_and_partials_and_facts_of_a_turn_are_its_own() -> None:
    assert (turn({"silence_ms": 2500}).text, turn({"silence_ms": 2500}).silence_s) == ("", 2.5)
    assert turn({"user": "Two."}).partials is None
    assert turn({"user": "Two.", "partials": ["Too"]}).partials == ("Too",)
    assert turn({"user": "Two.", "facts": ["a", "b"]}).rag_context == "a\nb"
    assert turn({"user": "Two.", "max_tokens": 7}).max_tokens == 7


@pytest.mark.parametrize(
    ("send_after", "moment"),
    [
        ({"event": "llm_started"}, Moment("first_token")),
        ({"event": "bot_started_speaking", "delay_ms": 700}, Moment("first_speech", 0.7)),
        ({"word": "euros", "delay_ms": 100}, Moment("word", 0.1, "euros")),
    ],
)
def test_a_caller_breaks_in_at_the_moment_that_is_told(send_after: dict[str, Any], moment: Moment) -> None:
    assert turn({"user": "Stop.", "send_after": send_after}).starts == moment
    assert turn({"user": "Stop.", "send_after": send_after}).think_s is None
    assert turn({"user": "Stop.", "hang_up_after": send_after}).hangs_up == moment


def test_a_delay_alone_is_thinking_or_hanging_up_so_long_after_asking() -> None:
    slow = turn({"user": "Hm.", "send_after": {"delay_ms": 4000}})
    assert (slow.starts, slow.think_s) == (None, 4.0)
    assert turn({"user": "Hm.", "hang_up_after": {"delay_ms": 900}}).hangs_up == Moment("asked", 0.9)


def test_a_good_answer_goes_along() -> None:
    assert turn({"user": "Hm.", "reference": "Yes."}).reply == ScriptedReply("Yes.")
    booked = turn({"user": "Hm.", "reference": {"text": "Done.", "calls": [{"name": "book", "args": {"n": 2}}]}}).reply
    assert booked is not None
    assert (booked.text, [(name, dict(args)) for name, args in booked.calls]) == ("Done.", [("book", {"n": 2})])
