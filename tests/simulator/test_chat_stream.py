"""Tool calls of a streamed chat completion, which come in pieces, and lines that are no chat completion."""

from __future__ import annotations

import json
from typing import Any

import pytest

from voice_llm.events import ToolCall
from voice_llm.simulator import TargetError
from voice_llm.simulator.chat_stream import CallPieces, Chunk, parse_line, shown

pytestmark = pytest.mark.unit


def piece(index: int | None = None, call_id: str | None = None, **function: str) -> dict[str, Any]:
    fields = {"index": index, "id": call_id, "function": function}
    return {name: value for name, value in fields.items() if value is not None}


def line(*pieces: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"tool_calls": list(pieces)}}]}).encode() + b"\n"


def calls(*lines: bytes) -> tuple[ToolCall, ...]:
    pieces = CallPieces()
    for each in lines:
        chunk = parse_line(each)
        assert chunk is not None
        pieces.add(chunk.call_pieces)
    return pieces.calls()


def test_call_comes_in_pieces() -> None:
    assert calls(
        line(piece(0, "t1", name="find_room", arguments="")),
        line(piece(0, arguments='{"nig')),
        line(piece(0, arguments='hts": 2')),
        line(piece(0, arguments="}")),
    ) == (ToolCall("t1", "find_room", {"nights": 2}),)


def test_call_comes_at_once() -> None:
    assert calls(line(piece(0, "t1", name="find_room", arguments='{"nights": 2}'))) == (
        ToolCall("t1", "find_room", {"nights": 2}),
    )


def test_pieces_of_several_calls_are_told_apart_by_their_index() -> None:
    assert calls(
        line(piece(1, "t2", name="book", arguments='{"room"')),
        line(piece(0, "t1", name="find_room"), piece(1, arguments=": 7")),
        line(piece(0, arguments="{}"), piece(1, arguments="}")),
    ) == (ToolCall("t1", "find_room", {}), ToolCall("t2", "book", {"room": 7}))


def test_name_and_characters_may_be_cut_anywhere() -> None:
    pieces = [piece(0, "t1", name="find_"), piece(0, name="room"), *[piece(0, arguments=c) for c in '{"oda": "çift"}']]
    assert calls(*map(line, pieces)) == (ToolCall("t1", "find_room", {"oda": "çift"}),)


def test_call_without_arguments_or_id_or_index_is_one() -> None:
    assert calls(line(piece(name="hang_up"))) == (ToolCall("", "hang_up", {}),)


def test_id_that_is_repeated_counts_once() -> None:
    first, second = piece(0, "t1", name="hang_up"), piece(0, "t1", arguments="{}")
    assert calls(line(first), line(second)) == (ToolCall("t1", "hang_up", {}),)


def test_text_alone_calls_nothing() -> None:
    chunk = parse_line(b'data: {"choices": [{"delta": {"content": "Evet.", "tool_calls": null}}]}')
    assert chunk is not None
    assert (chunk.text, chunk.call_pieces) == ("Evet.", [])
    assert Chunk().call_pieces == []
    assert CallPieces().calls() == ()


@pytest.mark.parametrize("arguments", ["[1]", "7", '"x"', "null", '{"nights": ', "{}{}", "[" * 190])
def test_arguments_that_are_no_object_are_an_error(arguments: str) -> None:
    with pytest.raises(TargetError, match="arguments that are no object") as failed:
        calls(line(piece(0, "t1", name="find_room", arguments=arguments)))
    assert arguments.strip() in str(failed.value)


def test_arguments_in_an_error_are_cut() -> None:
    with pytest.raises(TargetError) as failed:
        calls(line(piece(0, "t1", name="find_room", arguments="x" * 5000)))
    assert len(str(failed.value)) < 400


def test_arguments_that_are_nested_without_end_are_an_error() -> None:
    with pytest.raises(TargetError, match="arguments that are no object"):
        calls(line(piece(0, "t1", name="find_room", arguments="[" * 5000)))


@pytest.mark.parametrize("function", [{"arguments": "{}"}, {"name": "", "arguments": "{}"}, {}])
def test_call_without_a_name_is_an_error(function: dict[str, str]) -> None:
    with pytest.raises(TargetError, match="without a name"):
        calls(line(piece(0, "t1", **function)))


@pytest.mark.parametrize("wrong", [[{"index": -1}], [{"index": "first"}], {"index": 0}, [7], [{"function": None}]])
def test_pieces_that_are_none_are_an_error(wrong: object) -> None:
    with pytest.raises(TargetError, match="no chat completion"):
        parse_line(b"data: " + json.dumps({"choices": [{"delta": {"tool_calls": wrong}}]}).encode())


@pytest.mark.parametrize("nothing", [b"", b"\n", b": keep-alive", b"event: ping", b"data: [DONE]", b"data:[DONE]\r\n"])
def test_lines_without_an_event_are_passed_over(nothing: bytes) -> None:
    assert parse_line(nothing) is None


def test_no_more_is_shown_of_a_body_than_fits_into_a_message() -> None:
    assert shown(b" busy \n") == "busy"
    assert shown("ş".encode() * 5000).startswith("şşş")
    assert len(shown(b"x" * 5000)) == 200
    assert shown(b"\xff\xfe") == "��"
