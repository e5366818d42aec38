"""Utf8Decoder: whole characters only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.text import Utf8Decoder

pytestmark = pytest.mark.unit


def test_character_cut_between_tokens_comes_out_whole() -> None:
    decoder = Utf8Decoder()
    first, second = "ş".encode()[:1], "ş".encode()[1:]
    assert decoder.decode(b"a" + first) == "a"
    assert decoder.decode(second + b"b") == "şb"
    assert decoder.flush() == ""


def test_incomplete_tail_is_dropped() -> None:
    decoder = Utf8Decoder()
    assert decoder.decode("😀".encode()[:3]) == ""
    assert decoder.flush() == ""
    assert decoder.decode(b"a") == "a"


def test_invalid_bytes_do_not_stop_the_reply() -> None:
    decoder = Utf8Decoder()
    assert decoder.decode(b"a\xffb") + decoder.flush() == "a\ufffdb"


@given(st.text())
def test_text_fed_byte_by_byte_comes_out_unchanged(text: str) -> None:
    decoder = Utf8Decoder()
    assert "".join(decoder.decode(bytes([byte])) for byte in text.encode()) + decoder.flush() == text
