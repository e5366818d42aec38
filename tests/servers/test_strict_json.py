"""Strict JSON: what servers read from peers."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from voice_llm.errors import InvalidRequestError
from voice_llm.servers import strict_json
from voice_llm.servers.strict_json import parse_json, read_json

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("value", [{"metin": "çay, lütfen"}, ["a", 1, 2.5, None, True], "söz", 3, {}])
def test_any_json_value_is_read_from_text_and_from_its_bytes(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)

    assert parse_json(text) == parse_json(text.encode()) == value


@pytest.mark.parametrize(
    "data",
    [
        "",
        "{",
        b"\xff\xfe",
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": NaN}',
        "[Infinity]",
        "-Infinity",
        "1e999",
        "9" * 301,
        '"\\ud800"',
        '{"\\ud800": 1}',
        '"\ud800"',
        "[" * 65 + "]" * 65,
        "[" * 100_000,
        '{"a":' * 65 + "1" + "}" * 65,
    ],
)
def test_what_is_no_strict_json_is_refused_in_few_words(data: bytes | str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        parse_json(data, what="the schema")

    assert str(refused.value).startswith("the schema ")
    assert len(str(refused.value)) < 100


def test_sixty_three_levels_are_let_in() -> None:
    value = parse_json("[" * 63 + "1" + "]" * 63)
    for _ in range(63):
        [value] = value
    assert value == 1


@pytest.mark.parametrize(("chars", "inline"), [(1_000, True), (100_000, False)])
async def test_large_json_is_read_off_the_event_loop(chars: int, inline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def watched(data: bytes | str, *, what: str) -> Any:
        threads.append(threading.get_ident())
        return parse_json(data, what=what)

    monkeypatch.setattr(strict_json, "parse_json", watched)

    assert await read_json(json.dumps("x" * chars), what="the message") == "x" * chars
    assert (threads == [threading.get_ident()]) is inline


async def test_large_json_that_is_wrong_is_refused_alike() -> None:
    with pytest.raises(InvalidRequestError, match="the body is not valid JSON"):
        await read_json("[" + "1," * 100_000, what="the body")
