"""Protobuf of the call contract: it says the same as its JSON form."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_llm._proto import call_pb2 as pb
from voice_llm.errors import InvalidRequestError
from voice_llm.events import FinishReason, Timings, Usage
from voice_llm.servers.grpc import convert
from voice_llm.servers.grpc.convert import client_event, server_event
from voice_llm.servers.grpc.off_loop import converted
from voice_llm.servers.grpc.struct import plain_struct, plain_value, struct_of
from voice_llm.session import CallError, CallThought, CallToolCall, Chunk, Ended, Ready, SessionEvent, TurnEnd, to_json
from voice_llm.session.contract import ClientEvent, Params, Start, Turn, parse_client_event

pytestmark = pytest.mark.unit

CLIENT_EVENTS: list[dict[str, Any]] = [
    {"type": "start"},
    {
        "type": "start",
        "call_id": "c1",
        "system_prompt": "Kısa konuş.",
        "history": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}],
        "tools": [{"name": "f", "description": "d", "parameters": {"type": "object", "maxProperties": 3}}],
        "params": {
            "max_tokens": 9,
            "temperature": 0.5,
            "stop": ["a", "b"],
            "seed": -(2**62) - 1,
            "json_schema": {"minimum": 0, "enum": [1, 1.5, None, True, "x"]},
            "tool_choice": "none",
        },
        "resume_token": "t",
        "last_turn_id": "t1",
        "last_index": 2,
    },
    {"type": "partial", "text": "Is it"},
    {"type": "partial"},
    {"type": "turn", "turn_id": "t1", "text": "Evet", "rag_context": "", "speculative": True, "params": {}},
    {"type": "turn", "turn_id": "t1", "text": "Evet"},
    {"type": "confirm", "turn_id": "t1"},
    {"type": "withdraw", "turn_id": "t1"},
    {"type": "played", "turn_id": "t1", "index": 0, "played_ms": 400},
    {"type": "interrupt"},
    {"type": "interrupt", "spoken_text": ""},
    {"type": "context", "rag_context": "Facts."},
    {"type": "tool_result", "tool_call_id": "x", "result": {"temperature": 21, "words": [1, None]}},
    {"type": "tool_result", "tool_call_id": "x", "result": "sunny"},
    {"type": "tool_result", "tool_call_id": "x"},
    {"type": "end", "reason": "hangup"},
]


def read(event: pb.ClientEvent) -> ClientEvent | InvalidRequestError:
    return client_event(event, max_messages=20)


USAGE = Usage(5, 3, 2)
SERVER_EVENTS: list[SessionEvent] = [
    Ready("c1", USAGE, 1.5, "token"),
    Chunk("t1", 2, "Merhaba, ", True),
    CallToolCall("t1", "x", "f", {"count": 3, "share": 0.25, "none": None, "list": [1, {"a": "b"}]}),
    TurnEnd("t1", FinishReason.TOOL_CALLS, USAGE, Timings(1.0, 2.0, 3.0, 4.0, 5.0)),
    CallError("at_capacity", "full", 1.5, True, "t1"),
    CallThought("t1", "hm"),
    Ended("end", 3, USAGE, 12.5),
]


@pytest.mark.parametrize("event", CLIENT_EVENTS, ids=lambda event: json.dumps(event)[:50])
def test_client_event_reads_as_its_json_form_does(event: dict[str, Any]) -> None:
    fields = {name: value for name, value in event.items() if name != "type"}
    message = pb.ClientEvent()
    getattr(message, event["type"]).SetInParent()
    json_format.ParseDict({event["type"]: fields}, message)
    assert read(pb.ClientEvent.FromString(message.SerializeToString())) == parse_client_event(event)


def test_optional_fields_are_told_from_empty_ones() -> None:
    bare = pb.Turn(turn_id="t1", text="Hm")
    empty = pb.Turn(turn_id="t1", text="Hm", rag_context="", params=pb.Params(top_k=0, grammar=""))
    assert read(pb.ClientEvent(turn=bare)) == Turn("t1", "Hm", None, False, None)
    params = Params(top_k=0, grammar="")
    assert read(pb.ClientEvent(turn=empty)) == Turn("t1", "Hm", "", False, params)


@pytest.mark.parametrize(
    ("event", "param"),
    [
        (pb.ClientEvent(), "event"),
        (pb.ClientEvent(turn=pb.Turn(text="x")), "turn_id"),
        (pb.ClientEvent(start=pb.Start(history=[pb.Message(role="judge")])), "messages[0].role"),
        (pb.ClientEvent(tool_result=pb.ToolResult(result=Value(number_value=float("nan")))), None),
    ],
)
def test_what_is_wrong_with_an_event_is_returned(event: pb.ClientEvent, param: str | None) -> None:
    error = read(event)
    assert isinstance(error, InvalidRequestError)
    assert error.param == param


@pytest.mark.parametrize(
    ("event", "param"),
    [
        (pb.ClientEvent(start=pb.Start(history=[pb.Message()] * 21)), "history"),
        (pb.ClientEvent(start=pb.Start(tools=[pb.Tool()] * 129)), "tools"),
        (pb.ClientEvent(start=pb.Start(params=pb.Params(stop=["x"] * 17))), "params.stop"),
        (pb.ClientEvent(turn=pb.Turn(turn_id="t1", text="Hi", params=pb.Params(stop=["x"] * 17))), "params.stop"),
    ],
    ids=["history", "tools", "stop of the call", "stop of a turn"],
)
def test_list_that_is_too_long_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch, event: pb.ClientEvent, param: str
) -> None:
    monkeypatch.setattr(convert, "parse_client_event", lambda data: pytest.fail("it was read"))
    error = read(event)
    assert isinstance(error, InvalidRequestError)
    assert error.param == param


@pytest.mark.parametrize(("texts", "is_off_loop"), [(1, False), (70, True)])
async def test_large_message_is_converted_off_the_event_loop(texts: int, is_off_loop: bool) -> None:
    message = pb.ClientEvent(start=pb.Start(history=[pb.Message(role="user", content="x" * 1024)] * texts))
    thread_id = await converted(message, threading.get_ident)
    assert (thread_id != threading.get_ident()) == is_off_loop


def test_field_of_a_later_contract_is_passed_over() -> None:
    assert read(pb.ClientEvent.FromString(b"\x0a\x03\xf8\x3f\x01")) == Start()


@pytest.mark.parametrize("event", SERVER_EVENTS, ids=lambda event: type(event).__name__)
def test_server_event_says_what_its_json_form_says(event: SessionEvent) -> None:
    expected = to_json(event)
    message = pb.ServerEvent.FromString(server_event(event).SerializeToString())
    assert message.WhichOneof("event") == expected.pop("type")
    body = getattr(message, message.WhichOneof("event") or "")
    if isinstance(event, CallToolCall):
        assert plain_struct(body.arguments) == event.arguments
        assert isinstance(plain_struct(body.arguments)["count"], int)
    found = json_format.MessageToDict(body, preserving_proto_field_name=True)
    assert found == expected


def test_what_is_unknown_is_left_at_its_default() -> None:
    end = server_event(TurnEnd("t1", FinishReason.CANCELLED, Usage(), Timings()))
    assert (end.turn_end.timings.first_token_ms, end.turn_end.finish_reason) == (0.0, "cancelled")
    assert server_event(CallError("wrong_state", "no")).error.retry_after_s == 0.0
    assert server_event(Ready("c1", Usage(), 0.0)).ready.resume_token == ""


def test_sums_of_a_very_long_call_do_not_break_its_end() -> None:
    assert server_event(Ended("end", 1, Usage(2**40, 1, 1))).ended.usage.prompt_tokens == 2**31 - 1


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_survives_the_way_through_a_struct(value: dict[str, Any]) -> None:
    assert plain_struct(struct_of(value)) == value


@pytest.mark.parametrize(("number", "plain"), [(3.0, 3), (-0.0, 0), (2.5, 2.5), (1e300, 1e300)])
def test_whole_numbers_become_integers_as_far_as_doubles_know_them(number: float, plain: float) -> None:
    found = plain_value(Value(number_value=number))
    assert (found, type(found)) == (plain, type(plain))
