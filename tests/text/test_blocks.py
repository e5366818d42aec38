"""BlockSplitter: what is inside of marked blocks is kept apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.text import BlockSplitter

pytestmark = pytest.mark.unit


def split(pieces: list[str], *, inside: bool = False) -> tuple[str, str]:
    splitter = BlockSplitter("<think>", "</think>", inside=inside)
    outside = "".join(splitter.decode(piece) for piece in pieces) + splitter.flush()
    return outside, splitter.take_inside()


@pytest.mark.parametrize(
    ("text", "outside", "inside"),
    [
        ("Merhaba.", "Merhaba.", ""),
        ("<think>Hmm.</think>\n\nMerhaba.", "Merhaba.", "Hmm."),
        ("A.<think>b</think>\nc <think>d</think>e", "A.\nc e", "bd"),
        ("\n Merhaba.", "\n Merhaba.", ""),
        ("\n<think>a</think>\n b", "\nb", "a"),
        ("<think>never closed", "", "never closed"),
        ("1 < 2 and <thin", "1 < 2 and <thin", ""),
        ("<think>a</thin", "", "a</thin"),
    ],
)
def test_block_is_taken_out(text: str, outside: str, inside: str) -> None:
    assert split([text]) == (outside, inside)
    assert split(list(text)) == (outside, inside)


def test_reply_may_begin_inside_a_block() -> None:
    assert split(["The caller asks.", "</th", "ink>\n", "\nHello"], inside=True) == ("Hello", "The caller asks.")


def test_only_a_possible_marker_is_held_back() -> None:
    splitter = BlockSplitter("<think>", "</think>")
    assert splitter.decode("a <") == "a "
    assert splitter.decode("b") == "<b"


def test_inside_text_is_given_once() -> None:
    splitter = BlockSplitter("<think>", "</think>")
    splitter.decode("<think>one ")
    assert splitter.take_inside() == "one "
    splitter.decode("two</think>")
    assert splitter.take_inside() == "two"
    assert splitter.take_inside() == ""


MARKUP = st.lists(st.sampled_from(["<think>", "</think>", "<", "think", ">", "/", "a", " ", "\n"])).map("".join)


@given(MARKUP, st.booleans())
def test_split_does_not_depend_on_how_the_text_is_cut(text: str, inside: bool) -> None:
    assert split([text], inside=inside) == split(list(text), inside=inside)
