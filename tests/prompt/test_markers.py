from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.prompt.markers import MarkerFinder

pytestmark = pytest.mark.unit

MARKERS = ("<|a|>", "<|a|>b", "<|", "[X]", "|>", "]")


def test_split_takes_the_longest_marker_from_the_left() -> None:
    found = list(MarkerFinder(MARKERS).split("x<|a|>bc[X]<|a|>"))
    assert found == [("x", False), ("<|a|>b", True), ("c", False), ("[X]", True), ("<|a|>", True)]


def test_cut_keeps_a_marker_of_one_character() -> None:
    assert MarkerFinder(["]"]).cut("a]b") == ["a]b"]


@given(st.lists(st.sampled_from([*MARKERS, *"<|>[]abX ğ"])).map("".join))
def test_cut_leaves_no_marker_and_loses_nothing(text: str) -> None:
    pieces = MarkerFinder(MARKERS).cut(text)
    assert "".join(pieces) == text
    assert not any(marker in piece for piece in pieces for marker in MARKERS if len(marker) > 1)


def test_without_markers_text_is_one_piece() -> None:
    finder = MarkerFinder([])
    assert finder.cut("a<b") == ["a<b"]
    assert list(finder.split("a<b")) == [("a<b", False)]
