"""ToolCallParser: words, and the calls after them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.text import ParsedCall, TextOutput, TextPipeline, ToolCallParser

pytestmark = pytest.mark.unit

NAMES = ("weather", "hang_up")
IZMIR = ParsedCall("weather", {"city": "İzmir"})
HANG_UP = ParsedCall("hang_up", {})


def call(name: str = "weather", **arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}</tool_call>"


def parse(*pieces: str) -> tuple[str, tuple[ParsedCall, ...]]:
    parser = ToolCallParser(NAMES)
    words = "".join([*(parser.decode(piece) for piece in pieces), parser.flush()])
    return words, parser.calls


@pytest.mark.parametrize(
    ("text", "words", "calls"),
    [
        ("Just words < 5.", "Just words < 5.", ()),
        ("A beginning <tool_", "A beginning <tool_", ()),
        (call(city="İzmir"), "", (IZMIR,)),
        ("Bakıyorum. " + call(city="İzmir") + call("hang_up"), "Bakıyorum. ", (IZMIR, HANG_UP)),
        (call(city="İzmir") + "\n" + call("hang_up") + " and more", "", (IZMIR, HANG_UP)),
        (call(city="</tool_call>"), "", (ParsedCall("weather", {"city": "</tool_call>"}),)),
        ('<tool_call>\n{ "name" : "hang_up" }\n</tool_call>', "", (HANG_UP,)),
        ('<tool_call>[{"name": "hang_up", "arguments": {}}</tool_call>', "", (HANG_UP,)),
        (call("transfer_money", to="me"), "", ()),
        (call("transfer_money", to="me") + call("hang_up"), "", (HANG_UP,)),
        ("<tool_call>nonsense</tool_call> Hello.", "", ()),
        ('<tool_call>{"name": "hang_up", "arguments": []}</tool_call>', "", ()),
        ('<tool_call>{"name": ["hang_up"], "arguments": {}}</tool_call>', "", ()),
        ('<tool_call>{"name": "weather", "arguments": {"city": NaN}}</tool_call>', "", ()),
        ('<tool_call>{"name": "weather", "arguments": {"city": "\\ud83d"}}</tool_call>', "", ()),
        ("<tool_call>" + "[" * 5000 + "</tool_call>", "", ()),
        (call(city="İzmir") + '<tool_call>{"name": "hang_up"', "", ()),
        ('Hm. <tool_call>{"name": "weather", "arguments": {"city": "İz</tool_call> Hello.', "Hm. ", ()),
    ],
)
def test_words_and_calls_are_told_apart(text: str, words: str, calls: tuple[ParsedCall, ...]) -> None:
    assert parse(text) == (words, calls)
    assert parse(*text) == (words, calls)


@given(
    st.lists(st.sampled_from(["a", "<", "tool_call>", "<tool_call>", "</tool_call>", '"', call(city="x")]), max_size=9)
)
def test_where_the_text_is_cut_does_not_matter(parts: list[str]) -> None:
    assert parse("".join(parts)) == parse(*parts) == parse(*"".join(parts))


def run(pieces: Sequence[str], **options: Any) -> tuple[list[TextOutput], TextPipeline]:
    pipeline = TextPipeline(tool_calls=ToolCallParser(NAMES), **options)
    outputs = [*(pipeline.decode(piece.encode()) for piece in pieces), pipeline.flush()]
    assert "".join(o.text for o in outputs) == "".join(chunk for o in outputs for chunk in o.chunks)
    return outputs, pipeline


def test_words_before_a_call_are_complete_as_soon_as_it_begins() -> None:
    """A voice can speak them while the call is still being written."""
    outputs, pipeline = run(["Let me look.", " <tool", '_call>{"na', 'me":"hang_up"}</tool_call>', " Done."])
    assert [o.chunks for o in outputs] == [(), (), ("Let me look.",), (), (), ()]
    assert [o.call_begun for o in outputs] == [None, None, '{"na', None, None, None]
    assert pipeline.tool_calls == (HANG_UP,)
    assert pipeline.emitted_visible_chars == len("Letmelook.")


def test_a_call_in_a_thought_is_only_thought_of() -> None:
    outputs, pipeline = run(["I could ", call("hang_up"), "</think>Hello.", call(city="İzmir")], inside_thought=True)
    assert [chunk for o in outputs for chunk in o.chunks] == ["Hello."]
    assert [o.call_begun for o in outputs[:3]] == [None, None, None]
    assert pipeline.tool_calls == (IZMIR,)


def test_without_tools_a_call_is_silent_and_the_reply_goes_on() -> None:
    pipeline = TextPipeline()
    outputs = [pipeline.decode(f"Hello {call('hang_up')} there.".encode()), pipeline.flush()]
    assert "".join(o.text for o in outputs) == "Hello there."
    assert pipeline.tool_calls == ()
