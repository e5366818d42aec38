from __future__ import annotations

from typing import Any

import pytest

from voice_llm.errors import InvalidRequestError
from voice_llm.events import ToolCall
from voice_llm.prompt import Message, parse_messages

pytestmark = pytest.mark.unit


def test_dictionaries_and_messages_are_read_alike() -> None:
    chat = parse_messages(
        [
            Message("system", "Kısa konuş."),
            {"role": "user", "content": "Merhaba", "rag_context": "Saat 9'da açılır."},
            {"role": "assistant", "content": "Buyurun."},
            {"role": "tool", "content": "{}"},
        ]
    )
    assert chat == (
        Message("system", "Kısa konuş."),
        Message("user", "Merhaba", "Saat 9'da açılır."),
        Message("assistant", "Buyurun."),
        Message("tool", "{}"),
    )


def test_text_parts_are_joined() -> None:
    content = [{"type": "text", "text": "İki "}, {"type": "text", "text": "bilet"}]
    assert parse_messages([{"role": "user", "content": content}])[0].content == "İki bilet"


def test_white_space_goes_around_the_content_but_not_inside_it() -> None:
    assert parse_messages([Message("user", "\n a  b\n\nc ")])[0].content == "a  b\n\nc"


def test_developer_is_the_system_message_at_the_start_and_a_user_message_later() -> None:
    chat = parse_messages([{"role": "developer", "content": "a"}, {"role": "developer", "content": "b"}])
    assert [message.role for message in chat] == ["system", "user"]


def test_blank_rag_context_is_none() -> None:
    assert parse_messages([{"role": "user", "content": "a", "rag_context": "  "}])[0].rag_context is None


@pytest.mark.parametrize(
    ("messages", "param", "says"),
    [
        ([], "messages", "at least one"),
        ("hi", "messages", "list"),
        ({"role": "user"}, "messages", "list"),
        (["hi"], "messages[0]", "object"),
        ([{"role": "robot", "content": "a"}], "messages[0].role", "'robot'"),
        ([{"content": "a"}], "messages[0].role", "None"),
        ([{"role": ["user"], "content": "a"}], "messages[0].role", "must be one of"),
        ([{"role": "user"}], "messages[0].content", "string"),
        ([{"role": "user", "content": None}], "messages[0].content", "NoneType"),
        ([{"role": "user", "content": 5}], "messages[0].content", "int"),
        ([{"role": "user", "content": b"a"}], "messages[0].content", ""),
        ([{"role": "user", "content": "\ud83d"}], "messages[0].content", "surrogate"),
        ([{"role": "user", "content": "a", "name": "b"}], "messages[0].name", "'name'"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0]", "'image_url'"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content[0]", "'text'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text", "string"),
        ([{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}], "messages[0].content[0].x", "'x'"),
        ([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}], "messages[1].role", "first message"),
        ([{"role": "assistant", "content": "a", "rag_context": "b"}], "messages[0].rag_context", "user message"),
        ([{"role": "user", "content": "a", "rag_context": 5}], "messages[0].rag_context", "string"),
        ([Message("robot", "a")], "messages[0].role", "'robot'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_used_is_refused_by_name(messages: Any, param: str, says: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        parse_messages(messages)
    assert refusal.value.param == param
    assert says in str(refusal.value)


def test_tool_calls_are_read_as_openai_writes_them() -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "İzmir"}'}},
        {"function": {"name": "hang_up", "arguments": {}}},
    ]
    ask, answer = parse_messages(
        [
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c1", "content": {"degrees": 12}},
        ]
    )
    assert ask == Message(
        "assistant", "", None, (ToolCall("c1", "weather", {"city": "İzmir"}), ToolCall("", "hang_up"))
    )
    assert answer == Message("tool", '{"degrees": 12}', tool_call_id="c1")
    assert parse_messages([ask, answer]) == (ask, answer)


@pytest.mark.parametrize("arguments", ['{"city": ', "[1]", '"text"', "", None, [1], '{"a": NaN}', '{"a": "\\ud83d"}'])
def test_arguments_that_are_no_json_object_are_refused_by_name(arguments: object) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages([Message("user", "a"), {"role": "assistant", "content": "b", "tool_calls": [call]}])
    assert caught.value.param == "messages[1].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"role": "user", "content": "a", "tool_calls": []}, "tool_calls"),
        ({"role": "user", "content": "a", "tool_call_id": "c"}, "tool_call_id"),
        ({"role": "tool", "content": "a", "tool_call_id": 5}, "tool_call_id"),
        ({"role": "assistant", "tool_calls": "a"}, "tool_calls"),
        ({"role": "assistant", "tool_calls": [5]}, "tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{"function": "a"}]}, "tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{"type": "x", "function": {}}]}, "tool_calls[0].type"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "a b"}}]}, "tool_calls[0].function.name"),
        ({"role": "assistant", "tool_calls": [{"function": {"nom": "a"}}]}, "tool_calls[0].function.nom"),
        ({"role": "assistant", "tool_calls": []}, "content"),
        ({"role": "tool", "content": {1: object()}}, "content"),
    ],
)
def test_a_bad_call_or_result_is_refused_by_name(message: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages([message])
    assert caught.value.param == f"messages[0].{field}"
