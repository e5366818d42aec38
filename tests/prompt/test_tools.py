"""Tools and tool choices from outside."""

from __future__ import annotations

from typing import Any

import pytest

from voice_llm.errors import InvalidRequestError
from voice_llm.prompt import AllowedTools, Tool, parse_tool_choice, parse_tools

pytestmark = pytest.mark.unit

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", "Tells the weather.", SCHEMA)
CLAIM = Tool("claim_status", "", {"type": "object", "properties": {}})


def test_tools_are_read_alike_however_they_are_written() -> None:
    function = {"name": "weather", "description": " Tells the weather. ", "parameters": SCHEMA}
    written: list[Tool | dict[str, Any]] = [
        WEATHER,
        {"type": "function", "function": {**function, "strict": False}},
        {"type": "function", **function},
        function,
    ]
    assert [parse_tools([tool])[0] for tool in written] == [WEATHER] * 4


def test_strict_is_kept_and_must_be_a_truth_value() -> None:
    assert parse_tools([{"name": "a", "strict": True}])[0].strict
    with pytest.raises(InvalidRequestError) as caught:
        parse_tools([{"name": "a", "strict": "yes"}])
    assert caught.value.param == "tools[0].strict"


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}, {"properties": {}}])
def test_a_tool_without_parameters_takes_an_empty_object(parameters: dict[str, Any] | None) -> None:
    assert parse_tools([{"name": "hang_up", "parameters": parameters}])[0].parameters == CLAIM.parameters


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ({"name": "a"}, "tools"),
        ("a", "tools"),
        ([5], "tools[0]"),
        ([{}], "tools[0].name"),
        ([{"name": "a b"}], "tools[0].name"),
        ([{"name": "ş"}], "tools[0].name"),
        ([{"name": "a" * 65}], "tools[0].name"),
        ([Tool("a"), Tool("")], "tools[1].name"),
        ([Tool("a"), Tool("b"), Tool("a")], "tools[2].name"),
        ([Tool(f"t{i}") for i in range(129)], "tools"),
        ([{"name": "a", "colour": 1}], "tools[0].colour"),
        ([{"name": "a", "description": 5}], "tools[0].description"),
        ([{"name": "a", "description": "\ud83d"}], "tools[0].description"),
        ([{"type": "retrieval", "name": "a"}], "tools[0].type"),
        ([{"type": "function", "function": "a"}], "tools[0].function"),
        ([{"type": "function", "function": {"name": ""}}], "tools[0].function.name"),
        ([{"type": "function", "function": {"name": "a"}, "name": "a"}], "tools[0].name"),
        ([{"name": "a", "parameters": []}], "tools[0].parameters"),
        ([{"name": "a", "parameters": {"type": "string"}}], "tools[0].parameters.type"),
        ([{"name": "a", "parameters": {"default": object()}}], "tools[0].parameters"),
        ([{"name": "a", "parameters": {"default": float("nan")}}], "tools[0].parameters"),
    ],
)
def test_a_bad_tool_is_refused_by_name(tools: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_tools(tools)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("choice", "allowed"),
    [
        ("auto", AllowedTools((0, 1))),
        ("none", AllowedTools(())),
        ("required", AllowedTools((0, 1), required=True)),
        ("claim_status", AllowedTools((1,), required=True, most_calls=1)),
        ({"type": "function", "function": {"name": "weather"}}, AllowedTools((0,), required=True, most_calls=1)),
    ],
)
def test_a_choice_says_what_may_be_called(choice: Any, allowed: AllowedTools) -> None:
    assert parse_tool_choice(choice, [WEATHER, CLAIM]) == allowed


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_without_tools_nothing_may_be_called(choice: str) -> None:
    assert parse_tool_choice(choice, []).indexes == ()


@pytest.mark.parametrize(
    "choice", ["required", "weather", "", None, 5, {}, {"type": "function", "function": "weather"}]
)
def test_a_choice_of_what_is_not_there_is_refused(choice: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_tool_choice(choice, [])
    assert caught.value.param == "tool_choice"
