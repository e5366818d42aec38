"""StopStrings: a reply ends before its first stop string."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.errors import InvalidRequestError
from voice_llm.text import StopStrings

pytestmark = pytest.mark.unit


def test_text_without_stop_strings_passes_through_at_once() -> None:
    stop = StopStrings()
    assert stop.decode("Merhaba") == "Merhaba"
    assert stop.flush() == ""
    assert stop.matched is None


def test_stop_string_cut_over_tokens_is_never_seen() -> None:
    stop = StopStrings(["<|im_end|>"])
    assert [stop.decode(piece) for piece in ("Bye.", "<|im", "_en", "d|> more")] == ["Bye.", "", "", ""]
    assert stop.matched == "<|im_end|>"
    assert stop.decode("more") == ""
    assert stop.flush() == ""


def test_false_beginning_is_released_as_soon_as_it_cannot_match() -> None:
    stop = StopStrings(["User:"])
    assert stop.decode("Us") == ""
    assert stop.decode("ually") == "Usually"
    assert stop.matched is None


def test_flush_releases_a_beginning_that_never_completed() -> None:
    stop = StopStrings(["User:"])
    assert stop.decode("Ask the User") == "Ask the "
    assert stop.flush() == "User"
    assert stop.matched is None


@pytest.mark.parametrize(
    ("stops", "text", "before", "matched"),
    [
        (["b", "a"], "xxaab", "xx", "a"),
        (["abcd", "bc"], "abcd", "", "abcd"),
        (["abcd", "bc"], "abcx", "a", "bc"),
        (["abc", "ab"], "xabc", "x", "ab"),
        (["aab"], "aaab", "a", "aab"),
        (["\n\n"], "Evet.\n\nHayır.", "Evet.", "\n\n"),
        (["^]-\\"], "a^]-\\b", "a", "^]-\\"),
    ],
)
def test_earliest_stop_string_wins(stops: list[str], text: str, before: str, matched: str) -> None:
    stop = StopStrings(stops)
    assert "".join(stop.decode(char) for char in text) + stop.flush() == before
    assert stop.matched == matched


def test_overlapped_stop_string_counts_when_the_text_ends() -> None:
    """``abcd`` began first but never completed, so ``bc`` inside it is the one."""
    stop = StopStrings(["abcd", "bc"])
    assert stop.decode("xabc") == "x"
    assert stop.flush() == "a"
    assert stop.matched == "bc"


def test_empty_stop_string_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="empty") as refused:
        StopStrings(["a", ""])
    assert refused.value.param == "stop"


@given(
    text=st.text("abc", max_size=30),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(1, 5), max_size=30),
)
def test_result_is_the_leftmost_match_at_any_split(text: str, stops: list[str], cuts: list[int]) -> None:
    stop = StopStrings(stops)
    output, rest = "", text
    for cut in cuts:
        output += stop.decode(rest[:cut])
        rest = rest[cut:]
    output += stop.decode(rest) + stop.flush()
    found = min(((text.index(s), len(s), s) for s in stops if s in text), default=None)
    assert (output, stop.matched) == ((text, None) if found is None else (text[: found[0]], found[2]))
