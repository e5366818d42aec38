"""Grammars and JSON schemas on the real vocabulary."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voice_llm.backend.llama import LlamaBackend
from voice_llm.config.sampling import SamplingParams
from voice_llm.errors import GrammarError

from .support import chat, continuation, prefill, text_of

pytestmark = pytest.mark.model

QUESTION = chat("Invent a caller. Answer in JSON only.")
Check = Callable[[Any], bool]


def reply(backend: LlamaBackend, most: int = 120, *, prompt: str = QUESTION, **params: Any) -> tuple[str, bool]:
    """The text of a constrained reply, and whether it came to its end."""
    tokens = continuation(backend, prompt, most, params=SamplingParams(seed=3, **params))
    return text_of(backend, tokens), backend.is_end_of_turn(tokens[-1])


@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
@pytest.mark.parametrize(
    ("grammar", "form"),
    [
        ('root ::= "yes" | "no"', r"yes|no"),
        ('root ::= "evet" | "hayır" | "şüpheliyim"', r"evet|hayır|şüpheliyim"),
        ("root ::= [ığüşöç]{4} [0-9]{2}", r"[ığüşöç]{4}[0-9]{2}"),
        ('root ::= "📞" [1-5] "\\u015f\\u0131k"', r"📞[1-5]şık"),
    ],
)
def test_a_grammar_forces_the_form_and_then_ends_the_turn(
    backend: LlamaBackend, grammar: str, form: str, temperature: float
) -> None:
    text, ended = reply(backend, grammar=grammar, temperature=temperature, top_k=0, top_p=1, min_p=0)
    assert re.fullmatch(form, text)
    assert ended


def test_a_turn_cannot_end_before_the_grammar_does(backend: LlamaBackend) -> None:
    text, ended = reply(backend, 9, grammar='root ::= "x"{40}', temperature=0)
    assert set(text) == {"x"}
    assert not ended


def test_penalties_and_a_grammar_work_together(backend: LlamaBackend) -> None:
    grammar = 'root ::= ([a-d] " "){6}'
    plain, _ = reply(backend, grammar=grammar, temperature=0)
    varied, _ = reply(backend, grammar=grammar, temperature=0, presence_penalty=8.0)
    assert len(set(plain)) < len(set(varied))


def test_a_grammar_that_no_token_can_follow_fails_that_reply_only(backend: LlamaBackend) -> None:
    before = continuation(backend)
    with pytest.raises(GrammarError, match="no token of this model is allowed"):
        continuation(backend, params=SamplingParams(grammar='root ::= "a" "\\x00"'))
    assert continuation(backend) == before


@pytest.mark.parametrize(
    "grammar",
    [
        "",
        "root ::=",
        'root ::= root "a"',
        "root ::= other",
        'start ::= "a"',
        'root ::= "a\0"',
        'root ::= "' + "a" * 70_000,
    ],
    ids=["empty", "no body", "left recursion", "undefined", "no root", "NUL", "huge"],
)
def test_a_refused_grammar_leaves_no_trace(
    backend: LlamaBackend, capfd: pytest.CaptureFixture[str], grammar: str
) -> None:
    before = continuation(backend)
    if grammar == "root ::=":
        assert continuation(backend, params=SamplingParams(grammar=grammar))[-1] in backend.model.end_of_turn_tokens
    else:
        with pytest.raises(GrammarError) as caught:
            backend.new_sampler(SamplingParams(grammar=grammar))
        assert caught.value.param == "grammar"
    assert continuation(backend) == before
    assert capfd.readouterr() == ("", "")


def is_object(value: Any, *required: str, **kinds: type) -> bool:
    return (
        isinstance(value, dict)
        and set(required) <= set(value) <= set(kinds)
        and all(isinstance(v, kinds[k]) for k, v in value.items())
    )


def is_date(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value) is not None


STRING: dict[str, Any] = {"type": "string", "maxLength": 12}
SCHEMAS: dict[str, tuple[dict[str, Any], Check]] = {
    "nested object": (
        {
            "type": "object",
            "properties": {
                "name": STRING,
                "address": {"type": "object", "properties": {"city": STRING}, "required": ["city"]},
            },
            "required": ["name", "address"],
        },
        lambda v: is_object(v, "name", "address", name=str, address=dict) and is_object(v["address"], "city", city=str),
    ),
    "enum": ({"enum": ["iptal", "gündüz", 3, None, True]}, lambda v: v in ["iptal", "gündüz", 3, None, True]),
    "text that JSON escapes": (
        {"enum": ['say "hi"', "back\\slash", "two\nlines"]},
        lambda v: v in ['say "hi"', "back\\slash", "two\nlines"],
    ),
    "const": ({"const": {"şehir": ["İzmir", 35, "👋"]}}, lambda v: v == {"şehir": ["İzmir", 35, "👋"]}),
    "array bounds": (
        {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
        lambda v: 2 <= len(v) <= 4 and all(isinstance(i, bool) for i in v),
    ),
    "array of none": ({"type": "array", "items": {"type": "null"}, "maxItems": 0}, lambda v: v == []),
    "tuple": (
        {"type": "array", "prefixItems": [{"type": "boolean"}, {"enum": ["a", "b"]}]},
        lambda v: len(v) == 2 and isinstance(v[0], bool) and v[1] in ("a", "b"),
    ),
    "string length": ({"type": "string", "minLength": 3, "maxLength": 9}, lambda v: 3 <= len(v) <= 9),
    "exact string length": ({"type": "string", "minLength": 5, "maxLength": 5}, lambda v: len(v) == 5),
    "long limit": (
        {
            "type": "object",
            "properties": {"note": {"type": "string", "minLength": 70, "maxLength": 100}},
            "required": ["note"],
        },
        lambda v: 70 <= len(v["note"]) <= 100,
    ),
    "date": ({"type": "string", "format": "date"}, is_date),
    "date and time": (
        {"type": "string", "format": "date-time"},
        lambda v: re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)", v) is not None,
    ),
    "uuid": ({"type": "string", "format": "uuid"}, lambda v: re.fullmatch(r"[0-9a-fA-F-]{36}", v) is not None),
    "pattern": (
        {"type": "string", "pattern": "^(TR|DE)-[0-9]{3}( \\(x\\))?$"},
        lambda v: re.fullmatch(r"(TR|DE)-[0-9]{3}( \(x\))?", v) is not None,
    ),
    "pattern of alternatives": ({"type": "string", "pattern": "^yes|no$"}, lambda v: v in ("yes", "no")),
    "pattern with a dot": ({"type": "string", "pattern": "^.{2,6}$"}, lambda v: 2 <= len(v) <= 6),
    "reference": (
        {
            "type": "object",
            "properties": {"born": {"$ref": "#/$defs/day"}, "day": {"enum": ["x"]}, "called": {"$ref": "#/$defs/day"}},
            "required": ["born", "day", "called"],
            "$defs": {"day": {"type": "string", "format": "date"}},
        },
        lambda v: is_date(v["born"]) and v["day"] == "x" and is_date(v["called"]),
    ),
    "references of one last name": (
        {
            "type": "array",
            "prefixItems": [{"$ref": "#/$defs/kind"}, {"$ref": "#/definitions/kind"}],
            "$defs": {"kind": {"enum": ["a", "b"]}},
            "definitions": {"kind": {"type": "boolean"}},
        },
        lambda v: v[0] in ("a", "b") and isinstance(v[1], bool),
    ),
    "reference named like a builtin": (
        {"$ref": "#/$defs/string", "$defs": {"string": {"type": "boolean"}}},
        lambda v: isinstance(v, bool),
    ),
    "any of": (
        {"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"enum": ["a"]}, "maxItems": 2}]},
        lambda v: v in (True, False, [], ["a"], ["a", "a"]),
    ),
    "several types": ({"type": ["boolean", "null"]}, lambda v: v in (True, False, None)),
    "optional properties": (
        {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}},
        lambda v: is_object(v, a=bool, b=type(None)),
    ),
    "Turkish names": (
        {
            "type": "object",
            "properties": {"şehir": {"enum": ["Iğdır"]}, "çehir": {"type": "boolean"}},
            "required": ["şehir", "çehir"],
        },
        lambda v: v["şehir"] == "Iğdır" and isinstance(v["çehir"], bool),
    ),
}


@pytest.mark.parametrize(("schema", "check"), SCHEMAS.values(), ids=SCHEMAS.keys())
def test_a_reply_parses_and_fits_its_schema(backend: LlamaBackend, schema: dict[str, Any], check: Check) -> None:
    text, ended = reply(backend, json_schema=schema, temperature=1.0)
    assert check(json.loads(text)), text
    assert ended


def test_a_schema_may_contain_itself(backend: LlamaBackend) -> None:
    node = {
        "type": "object",
        "properties": {"id": {"enum": [1, 2]}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
        "required": ["id", "next"],
    }
    wanted = '{"id": 1, "next": {"id": 2, "next": null}}'
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    text, ended = reply(backend, prompt=chat(f"Repeat: {wanted}\n" * 3), json_schema=schema, temperature=0)
    assert json.loads(text) == json.loads(wanted)
    assert ended


def test_a_date_has_a_month_and_a_day_that_exist(backend: LlamaBackend) -> None:
    text, _ = reply(backend, json_schema={"type": "string", "format": "date"}, temperature=0)
    assert datetime.date.fromisoformat(json.loads(text)).year


def test_a_string_cannot_hold_a_raw_line_break(backend: LlamaBackend) -> None:
    schema = {"type": "string", "minLength": 20, "maxLength": 40}
    prompt = chat("Write a poem.") + '"Roses are red,\n'
    for seed in range(3):
        params = SamplingParams(json_schema=schema, temperature=1.5, seed=seed)
        text = text_of(backend, continuation(backend, prompt, 60, params=params))
        assert isinstance(json.loads(text), str)


GRAMMAR_PARTS = st.recursive(
    st.sampled_from(['"a"', '"ş"', '""', "[^b]", ".", "x", "y", "[0-9]"]),
    lambda part: (
        st.builds("({} {})".format, part, part)
        | st.builds("({} | {})".format, part, part)
        | st.builds("{}{}".format, part, st.sampled_from(["*", "+", "?", "{2}", "{0,3}", "{1,}"]))
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(GRAMMAR_PARTS, GRAMMAR_PARTS, GRAMMAR_PARTS), st.integers(0, 99))
def test_no_grammar_ends_the_process(backend: LlamaBackend, rules: tuple[str, str, str], seed: int) -> None:
    grammar = "root ::= {}\nx ::= {}\ny ::= {}".format(*rules)
    backend.seq_drop(0)
    prefill(backend, 0, [100])
    try:
        sampler = backend.new_sampler(SamplingParams(grammar=grammar, temperature=5, top_k=0, seed=seed))
        # Always from the same logits: what counts is what the grammar makes of the draws.
        for _ in range(6):
            if backend.is_end_of_turn(backend.sample(0, sampler)):
                break
    except GrammarError:
        return
    sampler.close()
