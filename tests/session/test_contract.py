"""Client events as JSON: what is there has its effect, and what cannot have one is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from voice_llm.config import SamplingParams
from voice_llm.errors import InvalidRequestError, NotFoundError
from voice_llm.prompt import Message, Tool
from voice_llm.session import parse_client_event
from voice_llm.session.contract import (
    ClientEvent,
    Confirm,
    Context,
    End,
    Interrupt,
    Params,
    Partial,
    Played,
    Start,
    ToolResult,
    Turn,
    Withdraw,
)

pytestmark = pytest.mark.unit

ALL_PARAMS: dict[str, Any] = {
    "max_tokens": 9,
    "temperature": 0,
    "top_k": 3,
    "top_p": 0.5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.2,
    "frequency_penalty": 0.3,
    "stop": ["Dur"],
    "seed": 2**40,
    "grammar": 'root ::= "a"',
    "json_schema": {"type": "object"},
    "tool_choice": "auto",
    "reasoning_effort": "low",
    "pacing": "off",
    "lora_adapter_id": "x",
    "first_chunk": "sentence",
}


@pytest.mark.parametrize(
    ("wire", "event"),
    [
        ({"type": "start"}, Start()),
        (
            {
                "type": "start",
                "call_id": "c1",
                "profile": "test",
                "system_prompt": "Kısa konuş.",
                "rag_context": "Kargo yolda.",
                "history": [{"role": "user", "content": "Alo"}],
                "tools": [{"name": "look_up", "description": "Bakar.", "parameters": {"type": "object"}}],
                "params": ALL_PARAMS,
                "language": "tr-TR",
                "resume_token": "secret",
                "last_turn_id": "t1",
                "last_index": 2,
            },
            Start(
                call_id="c1",
                profile="test",
                system_prompt="Kısa konuş.",
                rag_context="Kargo yolda.",
                history=(Message("user", "Alo"),),
                tools=(Tool("look_up", "Bakar.", {"type": "object", "properties": {}}),),
                params=Params(**{**ALL_PARAMS, "stop": ("Dur",)}),
                language="tr-TR",
                resume_token="secret",
                last_turn_id="t1",
                last_index=2,
            ),
        ),
        ({"type": "partial", "text": "Sipari"}, Partial("Sipari")),
        ({"type": "partial"}, Partial("")),
        ({"type": "turn", "turn_id": "t1", "text": "Nerede?"}, Turn("t1", "Nerede?")),
        (
            {"type": "turn", "turn_id": "t1", "text": "x", "rag_context": "y", "speculative": True, "params": {}},
            Turn("t1", "x", "y", True, Params()),
        ),
        ({"type": "confirm", "turn_id": "t1"}, Confirm("t1")),
        ({"type": "withdraw", "turn_id": "t1"}, Withdraw("t1")),
        ({"type": "played", "turn_id": "t1", "index": 1, "played_ms": 20}, Played("t1", 1, 20)),
        ({"type": "played", "turn_id": "t1"}, Played("t1", 0, 0)),
        ({"type": "interrupt"}, Interrupt(None)),
        ({"type": "interrupt", "spoken_text": ""}, Interrupt("")),
        ({"type": "context", "rag_context": "z"}, Context("z")),
        ({"type": "tool_result", "tool_call_id": "c", "result": {"a": [1, None]}}, ToolResult("c", {"a": [1, None]})),
        ({"type": "tool_result", "tool_call_id": "c"}, ToolResult("c", None)),
        ({"type": "end", "reason": "hangup"}, End("hangup")),
        ({"type": "end"}, End("")),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else None,
)
def test_event_is_read_field_by_field(wire: dict[str, Any], event: ClientEvent) -> None:
    assert parse_client_event(json.loads(json.dumps(wire))) == event


@pytest.mark.parametrize(
    ("wire", "param"),
    [
        ({}, "type"),
        ({"type": "ready"}, "type"),
        ({"type": ["turn"]}, "type"),
        ({"type": "turn", "turn_id": "t", "text": "x", "speed": 2}, "speed"),
        ({"type": "start", "params": {"n": 2}}, "params.n"),
        ({"type": "start", "params": []}, "params"),
        ({"type": "start", "params": {"top_k": 1.5}}, "params.top_k"),
        ({"type": "start", "params": {"max_tokens": True}}, "params.max_tokens"),
        ({"type": "start", "params": {"stop": "x"}}, "params.stop"),
        ({"type": "start", "params": {"json_schema": "x"}}, "params.json_schema"),
        ({"type": "start", "history": [{"role": "user", "content": "x", "name": "y"}]}, "history[0].name"),
        ({"type": "start", "history": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"type": "start", "history": {}}, "history"),
        ({"type": "start", "tools": [{"name": "a b"}]}, "tools[0].name"),
        ({"type": "start", "tools": [{"name": "a", "strict": True}]}, "tools[0].strict"),
        ({"type": "start", "last_index": 2**31}, "last_index"),
        ({"type": "start", "call_id": None}, "call_id"),
        ({"type": "start", "call_id": "a\nb"}, "call_id"),
        ({"type": "start", "call_id": "a" * 129}, "call_id"),
        ({"type": "start", "last_turn_id": "t1"}, "last_turn_id"),
        ({"type": "turn", "text": "x"}, "turn_id"),
        ({"type": "turn", "turn_id": "t", "text": " "}, "text"),
        ({"type": "turn", "turn_id": 1, "text": "x"}, "turn_id"),
        ({"type": "turn", "turn_id": "t", "text": "yarım \ud83d"}, "text"),
        ({"type": "turn", "turn_id": "t", "text": "x", "speculative": 1}, "speculative"),
        ({"type": "confirm"}, "turn_id"),
        ({"type": "withdraw", "turn_id": ""}, "turn_id"),
        ({"type": "played", "index": 1}, "turn_id"),
        ({"type": "played", "turn_id": "t", "played_ms": "1"}, "played_ms"),
        ({"type": "tool_result", "result": 1}, "tool_call_id"),
        ({"type": "context", "rag_context": 3}, "rag_context"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_by_name(wire: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        parse_client_event(wire)
    assert refused.value.param == param


def test_what_is_no_object_or_nested_without_end_is_refused() -> None:
    endless: list[Any] = []
    for _ in range(100_000):
        endless = [endless]
    with pytest.raises(InvalidRequestError, match="object"):
        parse_client_event([])  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="nested"):
        parse_client_event({"type": "tool_result", "tool_call_id": "c", "result": endless})


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ({"type": "start", "history": [7] * 16_385}, "history"),
        ({"type": "start", "tools": [7] * 129}, "tools"),
        ({"type": "start", "params": {"stop": [7] * 17}}, "params.stop"),
        ({"type": "turn", "turn_id": "t1", "text": "x", "params": {"stop": [7] * 17}}, "params.stop"),
    ],
    ids=["history", "tools", "stop", "stop-of-a-turn"],
)
def test_items_too_many_are_refused_before_any_is_read(event: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError, match="more than") as refused:
        parse_client_event(event)
    assert refused.value.param == param


def test_server_may_take_more_messages_or_fewer() -> None:
    history = [{"role": "user", "content": "Alo"}] * 16_385
    start = parse_client_event({"type": "start", "history": history}, max_messages=20_000)
    assert isinstance(start, Start)
    assert len(start.history) == 16_385
    with pytest.raises(InvalidRequestError, match="more than 3"):
        parse_client_event({"type": "start", "history": history[:4]}, max_messages=3)


class TestParams:
    def test_each_value_takes_the_place_of_what_held_before(self) -> None:
        given = {k: v for k, v in ALL_PARAMS.items() if k not in ("reasoning_effort", "lora_adapter_id", "json_schema")}
        applied = Params(**{**given, "stop": ("Dur",)}).apply(SamplingParams())
        for name in given.keys() - {"tool_choice", "pacing", "stop"}:
            assert getattr(applied, name) == given[name], name
        assert applied.stop == ("Dur",)

    def test_what_is_not_given_stays(self) -> None:
        sampling = SamplingParams(max_tokens=7, stop=("a",), seed=3, grammar='root ::= "a"')
        assert Params().apply(sampling) == sampling

    def test_schema_takes_the_place_of_a_grammar(self) -> None:
        applied = Params(json_schema={"type": "object"}).apply(SamplingParams(grammar='root ::= "a"'))
        assert (applied.grammar, applied.json_schema) == (None, {"type": "object"})

    @pytest.mark.parametrize(
        ("params", "param"),
        [
            (Params(reasoning_effort="low"), "reasoning_effort"),
            (Params(pacing="fast"), "pacing"),
            (Params(first_chunk="word"), "first_chunk"),
            (Params(top_p=2.0), "top_p"),
            (Params(grammar="root", json_schema={}), "grammar"),
        ],
        ids=str,
    )
    def test_what_has_no_effect_is_refused_by_name(self, params: Params, param: str) -> None:
        with pytest.raises(InvalidRequestError, match=param) as refused:
            params.apply(SamplingParams())
        assert refused.value.param == param

    def test_adapter_is_not_found(self) -> None:
        with pytest.raises(NotFoundError, match="'x'"):
            Params(lora_adapter_id="x").apply(SamplingParams())
