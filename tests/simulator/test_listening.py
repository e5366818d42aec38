"""First speech and gaps are what a listener would notice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.simulator import HeardReply

pytestmark = pytest.mark.unit


def heard(pieces: list[tuple[float, str]], *, end_s: float | None = None, chars_per_s: float = 10.0) -> HeardReply:
    reply = HeardReply(0.0, chars_per_s)
    for now_s, text in pieces:
        reply.receive(text, now_s)
    reply.end(end_s if end_s is not None else pieces[-1][0])
    return reply


@pytest.mark.parametrize("mark", [".", "!", "?", "…"])
def test_speech_starts_with_the_first_whole_sentence(mark: str) -> None:
    reply = heard([(1.0, "Evet"), (2.0, mark), (3.0, " "), (4.0, "Tabii.")])
    assert (reply.first_token_s, reply.first_speech_s) == (1.0, 3.0)


def test_speech_starts_with_80_characters_where_no_sentence_ends() -> None:
    reply = heard([(1.0, "a" * 79), (2.0, "b"), (3.0, "c")])
    assert reply.first_speech_s == 2.0


def test_speech_starts_with_the_end_of_a_short_reply() -> None:
    reply = heard([(1.0, "It costs 3.50 euros.")], end_s=1.5)
    assert (reply.first_token_s, reply.first_speech_s) == (1.0, 1.5)
    assert reply.heard_until_s == pytest.approx(3.5)


@pytest.mark.parametrize("pieces", [[(1.0, "")], [(1.0, " \n")]])
def test_an_empty_reply_has_no_speech(pieces: list[tuple[float, str]]) -> None:
    reply = heard(pieces, end_s=2.0)
    assert reply.first_speech_s is None
    assert (reply.heard_until_s, reply.gaps) == (0.0, 0)


def test_leading_white_space_is_not_speech() -> None:
    reply = heard([(1.0, " " * 100), (2.0, "Yes. ")])
    assert reply.first_speech_s == 2.0


def test_a_silence_inside_the_reply_is_a_gap_of_its_length() -> None:
    # 10 characters play for 1 s from 1.0; the next come at 2.5 and play to 3.5; the last come at 3.75.
    reply = heard([(1.0, "012345678. "[1:]), (2.5, "0123456789"), (3.75, "0123456789")])
    assert reply.gaps == 2
    assert reply.gap_s == pytest.approx(0.5 + 0.25)
    assert reply.heard_until_s == pytest.approx(4.75)


def test_text_that_comes_before_it_is_needed_makes_no_gap() -> None:
    reply = heard([(1.0, "12345678. "), (1.9, "0123456789"), (2.9, "0123456789")])
    assert (reply.gaps, reply.gap_s) == (0, 0.0)
    assert reply.heard_until_s == pytest.approx(4.0)


def test_waiting_for_the_first_sentence_is_no_gap() -> None:
    reply = heard([(1.0, "One"), (9.0, " moment. "), (9.1, "Yes.")])
    assert reply.gaps == 0


def test_a_late_end_or_late_white_space_after_the_last_word_is_no_gap() -> None:
    reply = heard([(1.0, "Yes. "), (9.0, "\n")], end_s=10.0)
    assert (reply.gaps, reply.gap_s) == (0, 0.0)
    assert reply.heard_until_s == pytest.approx(1.5)


def test_late_white_space_between_words_does_not_hide_the_silence() -> None:
    reply = heard([(1.0, "12345678. "), (2.5, " "), (3.0, "Yes.")])
    assert reply.gaps == 1
    assert reply.gap_s == pytest.approx(1.0)


TEXTS = st.lists(st.text(alphabet="abç. ş\n", min_size=1, max_size=20), min_size=1, max_size=30)


@given(texts=TEXTS, shares=st.lists(st.floats(0, 0.99), min_size=30, max_size=30))
def test_no_gap_where_text_comes_faster_than_it_is_played(texts: list[str], shares: list[float]) -> None:
    """Each piece comes before the piece before it can have been played; white space of its own takes no time."""
    now_s = 0.0
    pieces = []
    for text, before, share in zip(texts, ["", *texts], shares, strict=False):
        now_s += share * len(before.strip()) / 10.0
        pieces.append((now_s, text))
    reply = heard(pieces)
    assert (reply.gaps, reply.gap_s) == (0, 0.0)


@given(pieces=st.lists(st.tuples(st.floats(0, 5), st.text(max_size=20)), min_size=1, max_size=30))
def test_a_played_reply_takes_its_characters_and_its_gaps(pieces: list[tuple[float, str]]) -> None:
    now_s = 0.0
    timed = [(now_s := now_s + delay_s, text) for delay_s, text in pieces]
    reply = heard(timed)
    assert reply.text == "".join(text for _, text in pieces)
    if reply.first_speech_s is None:
        assert not reply.text.strip()
    else:
        played = len(reply.text) if not reply.text[-1:].isspace() else None
        duration_s = reply.heard_until_s - reply.first_speech_s
        assert (reply.first_token_s or 0.0) <= reply.first_speech_s <= now_s
        assert played is None or duration_s == pytest.approx(played / 10.0 + reply.gap_s)
