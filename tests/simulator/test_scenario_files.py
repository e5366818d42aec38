"""Scenario files: what is wrong in one is told with its line, its field and a remedy."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from voice_llm.errors import ConfigError, NotFoundError
from voice_llm.simulator.scenario import (
    LoadedScenario,
    Pause,
    Scenario,
    find_scenarios,
    list_scenarios,
    load_scenarios,
    scenario_schema,
)
from voice_llm.simulator.scenario.load import _files_of
from voice_llm.simulator.scenario.places import read_yaml

pytestmark = pytest.mark.unit

GOOD = """\
name: a
turns:
  - user: Hello?
"""


def write(folder: Path, text: str, name: str = "calls.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def load_one(folder: Path, text: str) -> Scenario:
    (scenario,) = load_scenarios(write(folder, text))
    return scenario


def fault_of(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_scenarios(write(folder, text))
    return str(refused.value)


def test_a_file_is_a_scenario(tmp_path: Path) -> None:
    text = """\
        name: hello
        language: tr
        caller: {speaking_wpm: 120}
        every_reply:
          - max_words: 20
        turns:
          - user:
              - Merhaba
              - pause_ms: 700
              - orada mısınız?
            expect:
              - text_contains: [evet, buradayım]
          - silence_ms: 1500
        """
    scenario = load_one(tmp_path, text)
    assert (scenario.name, scenario.language, scenario.caller.speaking_wpm) == ("hello", "tr", 120)
    assert scenario.turns[0].user == ("Merhaba", Pause(pause_ms=700), "orada mısınız?")
    assert scenario.turns[0].text == "Merhaba orada mısınız?"
    assert scenario.turns[0].expect[0].text_contains == ("evet", "buradayım")
    assert scenario.turns[1].silence_ms == 1500
    assert isinstance(scenario, LoadedScenario)
    assert scenario.source == tmp_path / "calls.yaml"
    assert scenario.notes == ()


def test_plain_words_stay_words(tmp_path: Path) -> None:
    text = """\
        name: no
        facts: [yes, 012, 1e3, 2026-01-01, "true"]
        turns: [{user: off}]
        """
    scenario = load_one(tmp_path, text)
    assert scenario.name == "no"
    assert scenario.facts == ("yes", "012", "1e3", "2026-01-01", "true")
    assert scenario.turns[0].text == "off"


@pytest.mark.parametrize(
    ("text", "line", "field", "remedy"),
    [
        pytest.param(
            "name: a\ntunrs:\n  - user: Hi\nturns:\n  - user: Hi\n",
            2,
            "tunrs",
            "did you mean 'turns'?",
            id="unknown field",
        ),
        pytest.param(
            f"{GOOD}caller:\n  description: Calm\n  speaking_wmp: 120\n",
            6,
            "caller.speaking_wmp",
            "did you mean 'speaking_wpm'?",
            id="unknown field of the caller",
        ),
        pytest.param(f"{GOOD}    max_tokens: many\n", 4, "turns.0.max_tokens", "valid integer", id="word for a number"),
        pytest.param("name: a\nturns:\n  - user: 12\n", 3, "turns.0.user", "a list of texts and pauses", id="number"),
        pytest.param("name: a\nturns:\n  - user: ''\n", 3, "turns.0.user", "silence_ms", id="no words"),
        pytest.param("name: a\nturns: []\n", 2, "turns", "at least 1 item", id="no turns"),
        pytest.param("turns:\n  - user: Hi\n", 1, "name", "is missing", id="no name"),
        pytest.param("name: '[a]'\nturns:\n  - user: Hi\n", 1, "name", "match pattern", id="name with signs"),
        pytest.param(f"{GOOD}language: plain English\n", 4, "language", "such as 'tr' or 'en-GB'", id="language"),
        pytest.param(
            f"{GOOD}    expect:\n      - max_words: 9\n      - text_matches: (yes\n",
            6,
            "turns.0.expect.1.text_matches",
            "put a backslash before a sign that is meant as it is",
            id="bad regular expression",
        ),
        pytest.param(
            f"{GOOD}    expect:\n      - within_ms: 0\n",
            5,
            "turns.0.expect.0.within_ms",
            "greater than 0",
            id="no time",
        ),
        pytest.param(
            f"{GOOD}    expect:\n      - event: function_call\n        text_contains: yes\n",
            6,
            "turns.0.expect.0.text_contains",
            "leave it out, or name another event",
            id="text of a tool",
        ),
        pytest.param(
            f"{GOOD}    expect:\n      - absent: true\n        text_contains: yes\n",
            6,
            "turns.0.expect.0.text_contains",
            "nothing else can be expected",
            id="words of no reply",
        ),
        pytest.param(
            "name: a\ntools:\n  - name: book_room\nturns:\n  - user: Hi\n    expect:\n      - event: function_call\n"
            "        calls:\n          - name: bok_room\n",
            5,
            "turns.0",
            "there is no tool 'bok_room' (there are: book_room); add it to tools",
            id="unknown tool",
        ),
        pytest.param(
            f"{GOOD}    reference: {{text: Hi, calls: [{{name: book}}]}}\n",
            3,
            "turns.0",
            "add it to tools",
            id="unknown tool of a reference",
        ),
        pytest.param(
            f"{GOOD}    send_after: {{event: llm_started}}\n",
            4,
            "turns.0.send_after",
            "nothing comes before the first turn",
            id="first turn interrupts",
        ),
        pytest.param(
            f"{GOOD}  - user: So?\n    send_after: {{event: llm_started, word: yes}}\n",
            5,
            "turns.1.send_after.word",
            "event or word, not both",
            id="two anchors",
        ),
        pytest.param(
            f"{GOOD}    hang_up_after: {{delay_ms: 300}}\n  - user: Still there?\n",
            4,
            "turns.0.hang_up_after",
            "turns follow",
            id="turns after hanging up",
        ),
        pytest.param(f"{GOOD}    silence_ms: 300\n", 3, "turns.0", "either user", id="words and silence"),
        pytest.param(f"{GOOD}  - expect: []\n", 4, "turns.1", "either user", id="neither words nor silence"),
        pytest.param(f"{GOOD}persona: Angry\n", 4, "", "write the turns out", id="persona of a language model"),
        pytest.param("name: a\nturns:\n  - dtmf: '1'\n", 3, "", "sends no dtmf", id="keys"),
        pytest.param(f"{GOOD}name: b\n", 4, "", "'name' is given twice; keep one", id="key twice"),
        pytest.param(f"{GOOD}    user: Bye\n", 4, "", "'user' is given twice; keep one", id="key of a turn twice"),
        pytest.param("name: a\nturns:\n  - user: He said: hi\n", 3, "", "into quotes", id="colon in a text"),
        pytest.param("name: a\nturns:\n\t- user: Hi\n", 3, "", "indent with spaces", id="tab"),
        pytest.param("name: *a\n", 1, "", "undefined alias", id="alias of nothing"),
        pytest.param("name: a\nturns: &all\n  - *all\n", 2, "", "inside of what it stands for", id="alias in itself"),
        pytest.param("name: !python/object:os.system a\n", 1, "", "constructor for the tag", id="tag of Python's"),
        pytest.param("- user: Hi\n", 1, "", "keys and values, such as name and turns", id="a list"),
        pytest.param("scenarios: []\n", 1, "scenarios", "at least one scenario", id="no scenario of several"),
        pytest.param("scenarios:\n  - turns: []\n", 2, "name", "needs its own", id="no name of several"),
    ],
)
def test_a_fault_is_told_with_line_field_and_remedy(
    tmp_path: Path, text: str, line: int, field: str, remedy: str
) -> None:
    told = fault_of(tmp_path, text).splitlines()[0]
    assert told.startswith(f"{tmp_path / 'calls.yaml'}, line {line}: {field}")
    assert remedy in told


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    told = fault_of(tmp_path, f"{GOOD}caller:\n  think_s: -1\n  mishears: 2\nmax_tokens: 0\n").splitlines()
    assert [line.split(": ")[0].rpartition(" ")[2] for line in told] == ["5", "6", "7"]


@pytest.mark.parametrize(("text", "words"), [("", "is empty"), ("# nothing\n", "is empty")])
def test_an_empty_file_is_told(tmp_path: Path, text: str, words: str) -> None:
    assert fault_of(tmp_path, text) == f"{tmp_path / 'calls.yaml'} {words}"


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "calls.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_scenarios(path)
    with pytest.raises(ConfigError, match=r"gone\.yaml cannot be read"):
        load_scenarios(tmp_path / "gone.yaml")


def test_scenarios_of_a_file_share_what_is_at_its_top(tmp_path: Path) -> None:
    text = """\
        name: hotel
        language: tr
        facts: [Kahvaltı 14 avro.]
        turns:
          - user: Merhaba.
        scenarios:
          - name: short
          - name: other
            language: en
            turns:
              - user: Hello.
              - user: Bye.
        """
    short, other = load_scenarios(write(tmp_path, text))
    assert [short.name, other.name] == ["hotel/short", "hotel/other"]
    assert [short.language, other.language] == ["tr", "en"]
    assert short.facts == other.facts == ("Kahvaltı 14 avro.",)
    assert [len(short.turns), len(other.turns)] == [1, 2]


def test_a_fault_of_one_of_several_is_told_where_it_stands(tmp_path: Path) -> None:
    shared = "max_tokens: 0\nscenarios:\n  - name: one\n    turns: [{user: Hi}]\n"
    assert "line 1: max_tokens: " in fault_of(tmp_path, shared)
    own = (
        "scenarios:\n  - {name: one, turns: [{user: Hi}]}\n  - name: two\n    turns: [{user: Hi}]\n    max_tokens: 0\n"
    )
    assert "line 5: max_tokens: " in fault_of(tmp_path, own)


def test_a_name_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    text = "scenarios:\n  - {name: a, turns: [{user: Hi}]}\n  - {name: a, turns: [{user: Ho}]}\n"
    assert "line 3: the name 'calls/a' is given twice" in fault_of(tmp_path, text)


def test_another_file_is_included(tmp_path: Path) -> None:
    write(tmp_path, "- The shop opens at 9.\n- It is closed on Sunday.\n", "facts.yaml")
    scenario = load_one(tmp_path, f"{GOOD}facts: !include facts.yaml\n")
    assert scenario.facts == ("The shop opens at 9.", "It is closed on Sunday.")


def test_a_fault_of_an_included_file_is_told_with_its_own_name(tmp_path: Path) -> None:
    included = write(tmp_path, "description: Calm\nthink_s: slow\n", "person.yaml")
    told = fault_of(tmp_path, f"{GOOD}caller: !include person.yaml\n")
    assert told.startswith(f"{included}, line 2: caller.think_s: ")


def test_an_include_of_nothing_or_of_itself_is_refused(tmp_path: Path) -> None:
    assert "line 4: there is no file" in fault_of(tmp_path, f"{GOOD}facts: !include gone.yaml\n")
    assert "line 4: !include takes the name of a file" in fault_of(tmp_path, f"{GOOD}facts: !include [a.yaml]\n")
    write(tmp_path, "caller: !include calls.yaml\n", "other.yaml")
    assert "includes itself" in fault_of(tmp_path, f"{GOOD}caller: !include other.yaml\n")


def test_a_pipecat_eval_is_taken_over_and_what_is_not_checked_is_noted(tmp_path: Path) -> None:
    text = """\
        name: weather
        judge: {model: some-model}
        trigger_disconnect: true
        tools: [{name: get_weather}]
        turns:
          - user: Is it warm in Ankara?
            audio: ankara.wav
            expect:
              - event: user_started_speaking
              - event: function_call
                name: get_weather
                args: {city: Ankara}
              - event: llm_response
                check_from: start
                text_contains: degrees
              - eval: It sounds friendly.
          - user: And tomorrow?
            send_after: {event: response, delay_ms: 300}
            expect:
              - event: function_call
                calls: [get_weather]
          - user: Thanks!
            send_after: {event: bot_stopped_speaking, delay_ms: 900}
        """
    scenario = load_one(tmp_path, text)
    assert isinstance(scenario, LoadedScenario)
    first, second, third = scenario.turns
    assert [expectation.event for expectation in first.expect] == ["function_call", "response", "response"]
    assert [(call.name, dict(call.args)) for call in first.expect[0].calls] == [("get_weather", {"city": "Ankara"})]
    assert first.expect[1].text_contains == ("degrees",)
    assert first.expect[2].eval == "It sounds friendly."
    assert [call.name for call in second.expect[0].calls] == ["get_weather"]
    assert second.send_after is not None
    assert (second.send_after.event, second.send_after.delay_ms) == ("llm_started", 300)
    assert third.send_after is not None
    assert (third.send_after.interrupts, third.send_after.delay_ms) == (False, 900)
    noted = "\n".join(scenario.notes)
    for part in ("judge: ", "trigger_disconnect: ", "turn 1: its recording", "turn 1: event user_started_speaking"):
        assert part in noted


def test_a_pipecat_eval_that_waits_for_something_else_is_refused_with_what_there_is(tmp_path: Path) -> None:
    told = fault_of(tmp_path, f"{GOOD}  - user: So?\n    send_after: {{event: user_turn_ended}}\n")
    assert "line 5: the caller cannot wait for 'user_turn_ended'" in told
    assert "bot_started_speaking" in told


@pytest.mark.parametrize(
    "change",
    [
        {"turns": []},
        {"turns": [{"user": 12}]},
        {"turns": [{"user": "Hi", "expct": []}]},
        {"turns": [{"user": "Hi", "expect": [{"event": "silence"}]}]},
        {"caller": {"mishears": 2}},
    ],
)
def test_the_schema_refuses_what_no_file_may_hold(change: dict[str, Any]) -> None:
    good = {"name": "a", "turns": [{"user": ["Hi", {"pause_ms": 300}, "there"]}]}
    validator = jsonschema_rs.validator_for(scenario_schema())
    assert validator.is_valid(good)
    assert not validator.is_valid(good | change)


def test_scenarios_are_found_by_file_folder_and_name(tmp_path: Path) -> None:
    two = write(tmp_path, GOOD.replace("name: a", "name: two"), "2.yml")
    one = write(tmp_path, GOOD.replace("name: a", "name: one"), "1.yaml")
    write(tmp_path, "no scenario", "readme.txt")
    assert [scenario.name for scenario in find_scenarios([str(two), str(one)])] == ["two", "one"]
    assert [scenario.name for scenario in find_scenarios([str(tmp_path), "clinic"])] == ["one", "two", "clinic"]
    assert find_scenarios([]) == ()


def test_what_is_not_found_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="unknown scenario 'hotel_boking'; did you mean 'hotel_booking'"):
        find_scenarios(["hotel_boking"])
    with pytest.raises(NotFoundError, match=r"there is no scenario file .*gone\.yaml"):
        find_scenarios([str(tmp_path / "gone.yaml")])
    with pytest.raises(NotFoundError, match="there is no scenario"):
        find_scenarios([str(tmp_path)])


@pytest.mark.parametrize("name", list_scenarios())
def test_the_schema_accepts_each_scenario_that_is_built_in(name: str) -> None:
    validator = jsonschema_rs.validator_for(scenario_schema())
    (path,) = _files_of(name)
    assert [str(error) for error in validator.iter_errors(read_yaml(path).data)] == []


@pytest.mark.parametrize(
    ("text", "line", "field", "remedy"),
    [
        (f"{GOOD}    expct: []\n", 4, "turns.0.expct", "did you mean 'expect'?"),
        (f"{GOOD}    expect:\n      - text_contain: a\n", 5, "turns.0.expect.0.text_contain", "'text_contains'?"),
        (f"{GOOD}    reference: {{txt: Hi}}\n", 4, "turns.0.reference.txt", "did you mean 'text'?"),
        (f"{GOOD}    max_tokens: many\n", 4, "turns.0.max_tokens", "valid integer"),
        (f"{GOOD}language: plain English\n", 4, "language", "such as 'tr'"),
        (f"{GOOD}source: x\n", 4, "", "unknown key 'source'"),
        (f"{GOOD}notes: [x]\n", 4, "", "unknown key 'notes'"),
        (f"{GOOD}max_tokens: !!int many\n", 4, "", "cannot be read"),
        (f"{GOOD}facts: [!!binary aGk=]\n", 4, "", "no text, number or boolean"),
        (f"{GOOD}max_tokens: {'9' * 5000}\n", 4, "", "cannot be read"),
        (f"{GOOD}  - user: b\n    send_after: {{event: [a]}}\n", 5, "", "cannot wait for ['a']"),
        (
            f"{GOOD}  - silence_ms: 500\n  - user: b\n    send_after: {{event: llm_started}}\n",
            6,
            "turns.2.send_after",
            "only a reply",
        ),
        (f"{GOOD}  - silence_ms: 500\n    send_after: {{word: a}}\n", 5, "turns.1.send_after", "only words interrupt"),
    ],
)
def test_a_fault_is_told_once_with_line_field_and_remedy(
    tmp_path: Path, text: str, line: int, field: str, remedy: str
) -> None:
    (told,) = fault_of(tmp_path, text).splitlines()
    assert told.startswith(f"{tmp_path / 'calls.yaml'}, line {line}: {field}")
    assert not told.startswith(f"{tmp_path / 'calls.yaml'}, line {line}: {field}.")
    assert remedy in told


@pytest.mark.parametrize("event", ["respons", "function_cal", "null", "[response]"])
def test_a_misspelt_event_is_refused_and_one_that_is_not_checked_here_is_noted(tmp_path: Path, event: str) -> None:
    expecting = f"{GOOD}    expect:\n      - event: "
    assert "unknown event" in fault_of(tmp_path, f"{expecting}{event}\n")
    (noted,) = load_scenarios(write(tmp_path, f"{expecting}user_transcription\n"))
    assert isinstance(noted, LoadedScenario)
    assert noted.notes == ("turn 1: event user_transcription is not checked",)


def test_brackets_without_end_are_refused(tmp_path: Path) -> None:
    assert "too deep" in fault_of(tmp_path, f"{GOOD}facts: {'[' * 3000}{']' * 3000}\n")


def test_pipecats_word_for_after_the_reply_is_what_callers_do_anyway(tmp_path: Path) -> None:
    turns = f"{GOOD}  - user: b\n    send_after: {{event: bot_stopped_speaking}}\n"
    (loaded,) = load_scenarios(write(tmp_path, turns))
    assert loaded.turns[1].send_after is None
