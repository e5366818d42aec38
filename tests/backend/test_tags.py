"""Structural tags: the grammar of tool calls, and what the real sampler then allows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from voice_llm.backend.llama import LlamaBackend
from voice_llm.backend.llama.sampling import LlamaSampler
from voice_llm.backend.llama.tags import tags_to_gbnf
from voice_llm.config import SamplingParams, StructuralTag, StructuralTags
from voice_llm.errors import BackendError, GrammarError
from voice_llm.prompt import Tool, ToolFormat, parse_tool_choice, parse_tools
from voice_llm.text import ToolCallParser

from .support import chat, generate, prefill, set_logits, text_of

pytestmark = pytest.mark.model

CLAIM = Tool(
    "claim_status",
    "Looks up a claim.",
    {
        "type": "object",
        "title": "Arguments",
        "properties": {"claim_number": {"type": "string", "description": "Digits.", "examples": ["1"], "default": "0"}},
        "required": ["claim_number"],
        "additionalProperties": False,
    },
)
HANG_UP = Tool("hang_up")
MOVE = Tool(
    "move",
    "",
    {
        "type": "object",
        "properties": {
            "to": {"enum": ["Beşiktaş", "Kadıköy"]},
            "floors": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
            "note": {"$ref": "#/$defs/note"},
        },
        "required": ["to", "floors", "note"],
        "$defs": {
            "note": {"type": "object", "properties": {"lift": {"type": "boolean"}, "by": {"const": "12:30, ok"}}}
        },
    },
)
NOTE = Tool("note", "", {"properties": {"text": {"type": "string", "maxLength": 12}}, "required": ["text"]})
QUESTION = "What is the status of my claim 4711?"
GREEDY = SamplingParams(temperature=0)
WILD = SamplingParams(temperature=5, top_k=0, top_p=1, min_p=0, seed=5)


def tags_of(choice: str, *tools: Tool) -> StructuralTags:
    parsed = parse_tools(tools)
    return ToolFormat().tags(parsed, parse_tool_choice(choice, parsed))


def reply(backend: LlamaBackend, tags: StructuralTags, params: SamplingParams = GREEDY, most: int = 150) -> list[int]:
    prefill(backend, 0, backend.tokenize(chat(QUESTION), parse_special=True))
    return generate(backend, 0, backend.new_sampler(params, tags), most)


def calls_in(text: str, *tools: Tool) -> list[tuple[str, dict[str, Any]]]:
    parser = ToolCallParser([tool.name for tool in tools])
    assert parser.decode(text) + parser.flush() == ""
    return list(parser.calls)


def test_a_named_tool_is_called_once_with_what_the_caller_said(backend: LlamaBackend) -> None:
    tokens = reply(backend, tags_of("claim_status", CLAIM, HANG_UP))
    assert backend.is_end_of_turn(tokens[-1])
    assert text_of(backend, tokens).startswith('<tool_call>{"name":"claim_status","arguments":{"claim_number":"')
    assert [name for name, _ in calls_in(text_of(backend, tokens), CLAIM)] == ["claim_status"]


@pytest.mark.parametrize("tool", [NOTE, HANG_UP, MOVE])
def test_even_nonsense_comes_in_the_form_that_the_history_has(backend: LlamaBackend, tool: Tool) -> None:
    """Character by character, so that a call that was sampled is found again in the next prompt."""
    tokens = reply(backend, tags_of(tool.name, HANG_UP, NOTE, MOVE), WILD, most=180)
    assert backend.is_end_of_turn(tokens[-1])
    text = text_of(backend, tokens)
    [(name, arguments)] = calls_in(text, tool)
    assert name == tool.name
    escaped_or_signed = {"\\", "-"} & set(text)  # "\\u0041" and "-0" have shorter forms
    assert escaped_or_signed or text == "".join(piece.text for piece in ToolFormat().call(name, arguments))


def preferring(backend: LlamaBackend, tokens: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits that put these tokens first, in order."""
    values = np.zeros(backend.model.n_vocab, dtype=np.float32)
    values[tokens] = 100 - np.arange(len(tokens))
    return values


class Lazy:
    """A sampler with tools that has been given nothing to sample yet."""

    def __init__(self, backend: LlamaBackend, *tools: Tool) -> None:
        self.backend = backend
        self.sampler = backend.new_sampler(GREEDY, tags_of("auto", *tools))

    def __enter__(self) -> Lazy:
        return self

    def __exit__(self, *_: object) -> None:
        self.sampler.close()

    def choose(self, *texts: str) -> str:
        """Return which of the texts, likeliest first, the sampler draws as the next token."""
        tokens = [self.backend.tokenize(text)[0] for text in texts]
        set_logits(self.backend, preferring(self.backend, tokens))
        token = self.backend.sample(0, self.sampler)
        return texts[tokens.index(token)] if token in tokens else text_of(self.backend, [token])


def test_words_are_free_until_a_call_begins(backend: LlamaBackend) -> None:
    with Lazy(backend, CLAIM) as lazy:
        assert lazy.choose("hello", "{") == "hello"
        lazy.sampler.open_tag("")
        assert lazy.choose("hello", "{") == "{"
        assert lazy.choose("}", '"') == '"'


@pytest.mark.parametrize(("choice", "most"), [("required", 8), ("auto", 8), ("hang_up", 1)])
def test_one_call_may_follow_another_but_not_without_end(backend: LlamaBackend, choice: str, most: int) -> None:
    call = '<tool_call>{"name":"hang_up","arguments":{}}</tool_call>'
    sampler = backend.new_sampler(GREEDY, tags_of(choice, HANG_UP))
    wanted = backend.tokenize(call * (most + 1))
    if choice == "auto":
        opening = backend.tokenize(call)[: len(backend.tokenize("<tool_call>"))]
        assert text_of(backend, opening) == "<tool_call>"
        wanted = wanted[len(opening) :]
        sampler.open_tag("")
    drawn: list[int] = []
    for token in wanted:
        set_logits(backend, preferring(backend, [token]))
        drawn.append(backend.sample(0, sampler))
        if backend.is_end_of_turn(drawn[-1]):
            break
    assert backend.is_end_of_turn(drawn[-1])
    assert text_of(backend, drawn) == (call * most).removeprefix("<tool_call>" if choice == "auto" else "")
    sampler.close()


@pytest.mark.parametrize(
    ("said", "wanted", "refused"),
    [
        ("{", '"', "{"),
        ('{"', "name", "arguments"),
        (' \n{"name":"', "hang", "name"),
        ('{"name":"claim', "_", '"'),
        ("[", "{", '"'),
        ('{"function', "{", '"'),
    ],
)
def test_a_call_goes_on_from_what_came_in_one_token_with_its_marker(
    backend: LlamaBackend, said: str, wanted: str, refused: str
) -> None:
    """Where no call begins like that, it is begun anew; the parser takes what can be read."""
    with Lazy(backend, HANG_UP, Tool("claim_status")) as lazy:
        lazy.sampler.open_tag(said)
        assert lazy.choose(refused, wanted) == wanted


def test_opening_a_call_twice_or_without_tools_changes_nothing(backend: LlamaBackend) -> None:
    with Lazy(backend, HANG_UP) as lazy:
        lazy.sampler.open_tag('{"')
        lazy.sampler.open_tag("")
        assert lazy.choose("{", "name") == "name"
    free = backend.new_sampler(GREEDY)
    free.open_tag("")
    assert isinstance(free, LlamaSampler)
    free.close()
    with pytest.raises(BackendError, match="closed"):
        free.open_tag("")


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"properties": {"age": {"type": "integer", "minimum": 18}}}, "'minimum'"),
        ({"properties": {"mail": {"type": "string", "format": "email"}}}, "'email'"),
        ({"properties": {"x": {"$ref": "https://example.org/x"}}}, "references inside"),
        ({"properties": {"x": {"$ref": "#/$defs/missing"}}, "$defs": {}}, "cannot be converted"),
        ({"properties": {}, "required": ["x"]}, "'x'"),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_with_its_tool(
    backend: LlamaBackend, schema: dict[str, Any], says: str
) -> None:
    with pytest.raises(GrammarError, match=says) as caught:
        backend.new_sampler(GREEDY, tags_of("auto", HANG_UP, Tool("bad", "", schema, strict=True)))
    assert caught.value.param == "tools[1].parameters"


@pytest.mark.parametrize("options", [{"grammar": 'root ::= "a"'}, {"json_schema": {"type": "string"}}])
def test_another_grammar_beside_tools_is_refused_by_name(backend: LlamaBackend, options: dict[str, Any]) -> None:
    with pytest.raises(GrammarError) as caught:
        backend.new_sampler(SamplingParams(**options), tags_of("auto", HANG_UP))
    assert caught.value.param == next(iter(options))


def test_equal_names_in_two_schemas_stay_apart() -> None:
    def tool(name: str, note: dict[str, Any]) -> Tool:
        return Tool(name, "", {"properties": {"note": {"$ref": "#/$defs/note"}}, "$defs": {"note": note}})

    text = tags_to_gbnf(tags_of("auto", tool("a", {"const": "A"}), tool("b", {"const": "B"})))
    rules = dict(line.split(" ::= ", 1) for line in text.splitlines())
    assert rules["schema-0-note"] != rules["schema-1-note"]
    assert "space" not in rules


def test_many_tools_fit_into_a_grammar() -> None:
    tools = [Tool(f"{CLAIM.name}_{i}", "", {**MOVE.parameters, "title": str(i)}) for i in range(32)]
    assert len(json.dumps([dict(t.parameters) for t in tools])) > 8_000
    assert tags_to_gbnf(tags_of("required", *tools)).count("tagged-31") == 3


@pytest.mark.parametrize(
    ("schema", "enforced"),
    [
        ({"type": "integer", "minimum": 18}, {"type": "integer"}),
        ({"type": "string", "format": "email"}, {"type": "string"}),
        ({"type": "string", "pattern": "(?i)x"}, {"type": "string"}),
        ({"type": "array", "items": {"type": "number", "maximum": 3}, "uniqueItems": True},
         {"type": "array", "items": {"type": "number"}}),
        ({"anyOf": [{"type": "integer", "multipleOf": 5}, {"type": "null"}]},
         {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    ],
)  # fmt: skip
def test_what_cannot_be_enforced_is_left_to_the_model_where_a_tool_is_not_strict(
    schema: dict[str, Any], enforced: dict[str, Any]
) -> None:
    def grammar(of: dict[str, Any], *, strict: bool) -> str:
        tag = StructuralTag("<tool_call>", {"type": "object", "properties": {"x": of}}, "</tool_call>", strict=strict)
        return tags_to_gbnf(StructuralTags("<tool_call>", (tag,)))

    assert grammar(schema, strict=False) == grammar(enforced, strict=True)
    with pytest.raises(GrammarError):
        grammar(schema, strict=True)
