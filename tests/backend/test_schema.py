from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.backend.llama.grammar import check_grammar
from voice_llm.backend.llama.schema import schema_to_gbnf
from voice_llm.errors import GrammarError

pytestmark = pytest.mark.unit

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "minimum": ({"type": "integer", "minimum": 1}, "at # uses 'minimum'"),
    "multipleOf": ({"type": "number", "multipleOf": 5}, "at # uses 'multipleOf'"),
    "allOf": ({"allOf": [{"type": "string"}]}, "at # uses 'allOf'"),
    "not": ({"type": "string", "not": {"const": "x"}}, "at # uses 'not'"),
    "if": ({"type": "object", "properties": {}, "if": {}, "then": {}}, "at # uses 'if', 'then'"),
    "patternProperties": ({"type": "object", "patternProperties": {}}, "at # uses 'patternProperties'"),
    "uniqueItems": ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "at # uses 'uniqueItems'"),
    "contains": ({"type": "array", "contains": {"type": "null"}}, "at # uses 'contains'"),
    "bounds without items": ({"type": "array", "minItems": 2}, "at # uses 'minItems'"),
    "pattern with minLength": ({"type": "string", "pattern": "^a$", "minLength": 1}, "at # uses 'minLength'"),
    "format with maxLength": ({"type": "string", "format": "date", "maxLength": 9}, "at # uses 'maxLength'"),
    "unknown format": ({"type": "string", "format": "email"}, "at # has the format 'email'"),
    "oneOf with a sibling": ({"oneOf": [{"type": "null"}], "type": "string"}, "at # uses 'type'"),
    "anyOf with oneOf": ({"anyOf": [{"type": "null"}], "oneOf": [{"type": "null"}]}, "at # uses 'oneOf'"),
    "reference with a sibling": ({"$ref": "#/$defs/a", "type": "null", "$defs": {"a": {}}}, "at # uses 'type'"),
    "several types with enum": ({"type": ["string", "null"], "enum": ["a"]}, "at # uses 'enum'"),
    "unknown type": ({"type": "float"}, "at # has the type 'float'"),
    "unknown keyword": ({"type": "string", "colour": "red"}, "at # uses 'colour'"),
    "remote reference": ({"$ref": "https://example.com/a.json"}, "refers to 'https://example.com/a.json'"),
    "reference to the whole": ({"type": "array", "items": {"$ref": "#"}}, "refers to '#'"),
    "reference to nothing": ({"$ref": "#/$defs/a"}, "cannot be converted: KeyError"),
    "undeclared requirement": (
        {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["b", "a"]},
        "at # requires 'b' without declaring it",
    ),
    "no alternatives": ({"anyOf": []}, "at # has no alternatives in 'anyOf'"),
    "empty enum": ({"enum": []}, "at # has no alternatives in 'enum'"),
    "lengths that cross": ({"type": "string", "minLength": 3, "maxLength": 1}, "a minLength of 3 above its maxLength"),
    "items that cross": ({"type": "array", "items": {}, "minItems": 3, "maxItems": 1}, "a minItems of 3 above"),
    "a length beyond counting": ({"type": "string", "maxLength": 100_000}, "has the maxLength 100000"),
    "a length that is no number": ({"type": "string", "minLength": "2"}, "has the minLength '2'"),
    "pattern without ends": ({"type": "string", "pattern": "a"}, "has the pattern 'a'"),
    "pattern with a class": ({"type": "string", "pattern": "^\\d+$"}, "has the pattern"),
    "pattern of what is not": ({"type": "string", "pattern": "^[^a]$"}, "has the pattern"),
    "pattern with a quote": ({"type": "string", "pattern": '^"$'}, "has the pattern"),
    "pattern whose range holds a quote": ({"type": "string", "pattern": "^[ -~]+$"}, "range  -~ holds a quote"),
    "pattern that is lazy": ({"type": "string", "pattern": "^a+?$"}, "has the pattern"),
    "pattern with an inner end": ({"type": "string", "pattern": "^a$|^b$"}, "has the pattern"),
    "pattern that is no expression": ({"type": "string", "pattern": "^(a))($"}, "cannot be converted"),
    "a property named *": ({"type": "object", "properties": {"*": {}}}, "has a property named '*'"),
    "not a schema": ({"type": "array", "items": [{"type": "null"}]}, "at #/items is"),
    "properties that are none": ({"properties": 5}, "cannot be converted: TypeError"),
}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(("schema", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_enforced_is_refused_by_name(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(reason)) as caught:
        schema_to_gbnf(schema)
    assert caught.value.param == "json_schema"


def test_the_path_leads_to_the_keyword() -> None:
    schema = {
        "type": "object",
        "properties": {
            "ages": {"type": "array", "items": {"anyOf": [{"type": "null"}, {"type": "integer", "maximum": 9}]}}
        },
    }
    with pytest.raises(GrammarError, match="at #/properties/ages/items/anyOf/1 uses 'maximum'"):
        schema_to_gbnf(schema)


def test_a_definition_is_checked_like_any_schema() -> None:
    schema = {"$ref": "#/$defs/age", "$defs": {"age": {"type": "integer", "minimum": 0}}}
    with pytest.raises(GrammarError, match="at #/\\$defs/age uses 'minimum'"):
        schema_to_gbnf(schema)


def test_nesting_is_bounded() -> None:
    check_grammar(schema_to_gbnf(nested(30)))
    for depth in (40, 3000):
        with pytest.raises(GrammarError):
            schema_to_gbnf(nested(depth))


def test_a_constant_is_written_in_its_own_letters() -> None:
    assert r'"\"ışık 👋\""' in schema_to_gbnf({"enum": ["ışık 👋"]})


@pytest.mark.parametrize("schema", [{"type": "string"}, {"type": "object"}, {"type": "string", "maxLength": 3}])
def test_a_string_holds_no_raw_control_characters(schema: dict[str, Any]) -> None:
    assert r'char ::= [^"\\\x7F\x00-\x1F] |' in schema_to_gbnf(schema)


def test_annotations_change_nothing() -> None:
    plain = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    annotated = {**plain, "title": "T", "description": "D", "$schema": "s", "examples": [{}], "default": {}}
    assert schema_to_gbnf(annotated) == schema_to_gbnf(plain)


def test_the_schema_that_was_given_is_left_as_it_is() -> None:
    schema = {"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "null"}}}
    schema_to_gbnf(schema)
    assert schema == {"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "null"}}}


KEYWORDS = [
    "type",
    "properties",
    "required",
    "items",
    "enum",
    "const",
    "anyOf",
    "$ref",
    "pattern",
    "format",
    "minItems",
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.text(max_size=3)
    | st.sampled_from(["string", "object", "array"]),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), v, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(KEYWORDS), JSON, max_size=4))
def test_any_json_is_either_converted_to_a_sound_grammar_or_refused(schema: dict[str, Any]) -> None:
    try:
        text = schema_to_gbnf(schema)
        check_grammar(text, param="json_schema")
    except GrammarError as e:
        refused = e.param
    else:
        refused = "json_schema"
    assert refused == "json_schema"
