"""Fields of a chat completion: each has its effect, has none by definition, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.helpers import profile
from voice_llm.config import ServerConfig
from voice_llm.errors import InvalidRequestError, NotFoundError, VoiceLLMError
from voice_llm.servers.http.request import FIELDS, ChatRequest, parse_chat_request

from .helpers import said

pytestmark = pytest.mark.unit

TOOL: Any = {"type": "function", "function": {"name": "look_up"}}


def parse(body: dict[str, Any], **config: Any) -> ChatRequest:
    return parse_chat_request(body, profile=profile(), model_names=("test", "fake"), config=ServerConfig(**config))


def refused(body: dict[str, Any], **config: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse(body, **config)
    return caught.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2), ("n", True), ("logprobs", True), ("logprobs", 0), ("top_logprobs", 3),
        ("logit_bias", {"50256": -100}),
        ("store", True), ("service_tier", "flex"), ("modalities", ["audio"]), ("audio", {"voice": "a"}),
        ("prediction", {}), ("web_search_options", {}), ("functions", []), ("function_call", "auto"),
        ("verbosity", "low"), ("reasoning_effort", "low"), ("reasoning_effort", "none"),
        ("lora", []), ("lora_adapter_id", "a"), ("best_of", 1), ("chat_template_kwargs", {}), ("temprature", 1.0),
        ("temperature", "hot"), ("temperature", -1), ("temperature", True), ("temperature", 10**290), ("top_p", 1.5),
        ("top_k", 1.5), ("min_p", 2), ("repetition_penalty", 0), ("seed", True), ("seed", 2**63), ("seed", 1.5),
        ("stop", ""), ("stop", [1]), ("stop", 5), ("stop", {"a": 1}), ("stop", ["a"] * 17), ("stop", "a" * 257),
        ("max_tokens", 0), ("max_tokens", 5000),
        ("max_tokens", True), ("max_completion_tokens", 5000), ("max_completion_tokens", "1"), ("stream", "yes"),
        ("stream", 1), ("rag_context", 5), ("grammar", 5), ("tools", {}), ("tools", "a"), ("tool_choice", "look_up"),
        ("tool_choice", "required"), ("tool_choice", 5), ("tool_choice", {"type": "custom", "function": {"name": "a"}}),
        ("tool_choice", {"type": "allowed_tools", "allowed_tools": {}}), ("parallel_tool_calls", "no"),
        ("response_format", "json"), ("stream_options", {"include_usage": True}), ("stream_options", 1),
        ("model", 5), ("messages", None), ("messages", "hi"), ("messages", []),
        ("messages", [{"role": "system", "content": "Be brief."}]),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(field: str, value: Any) -> None:
    error = refused(said("Hi.") | {field: value})
    assert error.param == field
    assert field in str(error)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"stream": True, "stream_options": {"include_usge": True}}, "stream_options.include_usge"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "text", "strict": True}}, "response_format.strict"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"strict": 1}}},
            "response_format.json_schema.strict",
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": 1}}}, "response_format.json_schema.name"),
        ({"response_format": {"type": "json_schema", "json_schema": {"size": 1}}}, "response_format.json_schema.size"),
        ({"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'}, "grammar"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
    ],
)
def test_what_is_wrong_inside_a_field_is_named_with_its_path(more: dict[str, Any], param: str) -> None:
    assert refused(said("Hi.", **more)).param == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "name": "ayşe", "content": "Hi."}, "messages[0].name"),
        ({"role": "user", "content": None}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "messages[0].content[0]"),
        ({"role": "robot", "content": "Hi."}, "messages[0].role"),
        ({"role": "assistant", "content": None, "refusal": "No."}, "messages[0].refusal"),
        ({"role": "assistant", "content": "", "function_call": {"name": "a"}}, "messages[0].function_call"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "custom", "function": {}}]},
         "messages[0].tool_calls[0].type"),
        ("Hi.", "messages[0]"),
    ],
)  # fmt: skip
def test_messages_that_cannot_be_used_as_written_are_refused(message: Any, param: str) -> None:
    assert refused({"messages": [message]}).param == param


@pytest.mark.parametrize(
    "more",
    [
        {"n": 1}, {"logprobs": False}, {"top_logprobs": 0}, {"logit_bias": {}}, {"store": False},
        {"service_tier": "auto"}, {"service_tier": "default"}, {"modalities": ["text"]}, {"pacing": "off"},
        {"pacing": "voice"},
        {"user": "u-1"}, {"metadata": {"a": "b"}}, {"safety_identifier": "x"}, {"prompt_cache_key": "k"}, {"tools": []},
        {"tools": [], "tool_choice": "none"},
        {"tools": [TOOL], "tool_choice": "look_up"}, {"parallel_tool_calls": True}, {"stop": []}, {"model": "test"},
        {"model": "fake"}, {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stream": True, "stream_options": {}}, {"max_tokens": 5, "max_completion_tokens": 5},
    ],
)  # fmt: skip
def test_what_asks_for_what_happens_anyway_is_accepted(more: dict[str, Any]) -> None:
    assert parse(said("Hi.", **more)).messages[-1].content == "Hi."


@pytest.mark.parametrize("field", sorted(FIELDS - {"messages"}))
def test_null_is_as_good_as_leaving_a_field_out(field: str) -> None:
    assert parse(said("Hi.") | {field: None}) == parse(said("Hi."))


def test_the_empty_fields_that_clients_repeat_are_no_reason_to_refuse() -> None:
    empty: dict[str, Any] = {
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "name": None,
    }
    chat = parse(
        {
            "messages": [
                {"role": "user", "content": "Hi.", "name": ""},
                {"role": "assistant", "content": "Hello.", **empty},
                {"role": "user", "content": "Well?"},
            ]
        }
    )
    assert [message.content for message in chat.messages] == ["Hi.", "Hello.", "Well?"]


def test_what_a_reply_thought_may_come_back_with_it_and_is_left_out() -> None:
    chat = parse(
        {
            "messages": [
                {"role": "user", "content": "Hi."},
                {"role": "assistant", "content": "Hello.", "reasoning_content": "Hmm.", "reasoning": "Hmm."},
                {"role": "user", "content": "Well?"},
            ]
        }
    )
    assert [message.content for message in chat.messages] == ["Hi.", "Hello.", "Well?"]


@pytest.mark.parametrize(("note", "value"), [("user", 1), ("metadata", "x"), ("safety_identifier", {}), ("user", [])])
def test_notes_of_the_wrong_type_are_refused_by_name(note: str, value: Any) -> None:
    assert refused(said("Hi.", **{note: value})).param == note


def test_another_model_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="gpt-4o"):
        parse(said("Hi.", model="gpt-4o"))


def test_bounds_of_the_configuration_hold() -> None:
    assert refused(said("Hi.", max_tokens=11), max_reply_tokens=10).param == "max_tokens"
    assert parse(said("Hi.", max_tokens=10), max_reply_tokens=10).params.max_tokens == 10
    messages = said("Hi.")["messages"] * 3
    assert refused({"messages": messages}, max_messages=2).param == "messages"
    assert len(parse({"messages": messages}, max_messages=3).messages) == 3


def test_no_value_of_any_field_is_more_than_refused() -> None:
    odd: list[Any] = [
        None,
        True,
        0,
        -1,
        1e308,
        10**299,
        "",
        "\0",
        "x" * 2000,
        [],
        [[]],
        [{}],
        {},
        {"a": {}},
        {"type": []},
    ]
    for field in FIELDS | {"other"}:
        for value in odd:
            try:
                parse(said("Hi.") | {field: value})
            except VoiceLLMError as error:
                assert error.code in ("invalid_request", "not_found")  # noqa: PT017
