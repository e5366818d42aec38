from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.prompt import Reply, Sampled, Text, match_replies, splice

pytestmark = pytest.mark.unit


class Spoken:
    """A reply whose tokens are the given pieces; its filter takes out stars and thoughts."""

    def __init__(
        self, pieces: Sequence[str | bytes], visible: Sequence[int], text: str, *, complete: bool = True
    ) -> None:
        self.pieces = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]
        self.reply = Reply(tuple(range(len(pieces))), tuple(visible), text, complete)

    def splice(self, content: str) -> tuple[int, str]:
        """How many sampled tokens stand for the content, and what it then reads."""
        written = splice(content, self.reply, self.pieces.__getitem__)
        sampled = [piece for piece in written if isinstance(piece, Sampled)]
        assert written[: len(sampled)] == tuple(sampled)
        assert len(written) <= 2
        data = b"".join(self.pieces[token] for piece in sampled for token in piece.tokens)
        text = "".join(piece.text for piece in written if isinstance(piece, Text))
        return sum(len(piece.tokens) for piece in sampled), data.decode() + text


def dense(text: str) -> str:
    return "".join(text.split())


def said(text: str) -> str:
    """What the filter of ``Spoken`` gives out."""
    return re.sub(r"\*|<think>.*?</think>", "", text, flags=re.DOTALL)


GREETING = Spoken(
    ["Merhaba", ",", " nasıl", " yardımcı", " ol", "abilirim", "?"],
    [7, 8, 13, 21, 23, 31, 32],
    "Merhaba, nasıl yardımcı olabilirim?",
)
MARKED = Spoken(
    ["The ", "**", "to", "tal", "**", " is ", "*", "5", "*", "."],
    [3, 3, 5, 8, 8, 10, 10, 11, 11, 12],
    "The total is 5.",
)
THOUGHT = Spoken(
    ["<think>", "The total", " is?", "</think>", "\n\n", "The", " total", " is 5."],
    [0, 0, 0, 0, 0, 3, 8, 12],
    "The total is 5.",
)
EMOJI = Spoken(["Olur ", b"\xf0\x9f", b"\x91\x8d", " t", "amam"], [4, 4, 5, 6, 10], "Olur 👍 tamam")
HELD = Spoken(["Is 5 ", "<", " 6", "? Ye", "s."], [2, 2, 5, 8, 10], "Is 5 < 6? Yes.")


def test_a_complete_reply_is_repeated_as_sampled() -> None:
    assert splice(MARKED.reply.text, MARKED.reply, MARKED.pieces.__getitem__) == (Sampled(MARKED.reply.tokens),)


def test_other_white_space_is_no_difference() -> None:
    assert GREETING.splice("Merhaba,  nasıl\nyardımcı olabilirim ?")[0] == 7


@pytest.mark.parametrize("spoken", [GREETING, MARKED, THOUGHT, EMOJI, HELD])
def test_a_cut_reply_says_what_was_spoken_and_never_more(spoken: Spoken) -> None:
    text = spoken.reply.text
    for end in range(1, len(text) + 1):
        content = text[:end].strip()
        count, written = spoken.splice(content)
        assert said(written).split() == content.split()
        assert count <= len(spoken.pieces)


def test_a_cut_between_tokens_keeps_the_sampled_ones() -> None:
    assert GREETING.splice("Merhaba, nasıl") == (3, "Merhaba, nasıl")
    assert MARKED.splice("The total") == (4, "The **total")
    assert THOUGHT.splice("The total") == (7, "<think>The total is?</think>\n\nThe total")
    assert EMOJI.splice("Olur 👍") == (3, "Olur 👍")


def test_a_cut_inside_a_token_goes_on_as_text() -> None:
    assert GREETING.splice("Merhaba, nasıl yard") == (3, "Merhaba, nasıl yard")
    assert MARKED.splice("Th") == (0, "Th")
    assert EMOJI.splice("Olur 👍 tam") == (4, "Olur 👍 tam")


def test_white_space_at_the_seam_is_not_doubled() -> None:
    spoken = Spoken(["Good ", "morning ", "everyone"], [4, 11, 19], "Good morning everyone")
    assert spoken.splice("Good morning ev") == (2, "Good morning ev")


def test_text_that_the_filter_held_back_is_not_said() -> None:
    """The token before the cut may bring more than had been given out by then."""
    spoken = Spoken(["5 <", " 6"], [1, 3], "5 < 6")
    assert spoken.splice("5") == (0, "5")
    assert spoken.splice("5 <") == (1, "5 <")


def test_a_stop_string_is_not_said() -> None:
    spoken = Spoken(["Tamam", " o zaman", ".\n\nUser", ":"], [5, 11, 12, 12], "Tamam o zaman.", complete=False)
    assert spoken.splice("Tamam o zaman.") == (2, "Tamam o zaman.")


def test_a_later_thought_is_not_taken_for_the_text() -> None:
    spoken = Spoken(["Tamam", "<think>", "Tamam", "</think>"], [5, 5, 5, 5], "Tamam", complete=False)
    assert spoken.splice("Tamam") == (1, "Tamam")


def test_a_cancelled_reply_keeps_only_what_was_given_out() -> None:
    spoken = Spoken(["Tamam", " o", " zaman"], [5, 6, 6], "Tamam o", complete=False)
    assert spoken.splice("Tamam o") == (2, "Tamam o")


def test_a_filter_that_rewrites_leaves_cut_replies_as_text() -> None:
    spoken = Spoken(["5", "%", " off"], [1, 8, 11], "5 percent off")
    assert spoken.splice("5 percent") == (0, "5 percent")
    assert spoken.splice("5 percent off")[0] == 3


@given(st.data())
def test_no_cut_of_any_reply_says_more_or_less(data: st.DataObject) -> None:
    text = data.draw(st.text(alphabet="abğş👍 \n*", min_size=1, max_size=24))
    raw = text.encode()
    edges = sorted(data.draw(st.sets(st.integers(1, len(raw)), max_size=10)) | {0, len(raw)})
    pieces = [raw[start:end] for start, end in pairwise(edges)]
    given_out = [len(dense(said(raw[:end].decode(errors="ignore")))) for end in edges[1:]]
    lag = data.draw(st.integers(0, 2))
    visible = [max(0, count - lag) for count in given_out[:-1]] + given_out[-1:]
    spoken = Spoken(pieces, visible, said(text), complete=data.draw(st.booleans()))
    whole = dense(said(text))
    for length in range(1, len(whole) + 1):
        count, written = spoken.splice(whole[:length])
        assert dense(said(written)) == whole[:length]
        if "*" not in text:
            ends = zip(given_out, edges[1:], strict=True)
            best = max((total for total, end in ends if total <= length and _is_whole(raw[:end])), default=0)
            assert (given_out[count - 1] if count else 0) == best


def _is_whole(data: bytes) -> bool:
    return data.decode(errors="ignore").encode() == data


def replies(*texts: str) -> list[Reply]:
    return [Reply((), (), text, True) for text in texts]


def test_messages_find_their_replies_in_order() -> None:
    a, b, c = replies("Tamam.", "Kaç kişi?", "Tamam.")
    assert match_replies(["Tamam.", "Kaç  kişi ?", "Tamam."], [a, b, c]) == [a, b, c]


def test_a_message_without_a_reply_and_a_reply_without_a_message_are_passed_over() -> None:
    a, b = replies("Merhaba, ben Ayşe.", "Tabii.")
    assert match_replies(["Merhaba", "Merhaba, ben Ayşe.", "Tabii."], [a, b]) == [None, a, b]
    assert match_replies(["Tabii."], [a, b]) == [b]
    assert match_replies(["Başka bir şey", ""], [a, b]) == [None, None]
    assert match_replies(["x"], []) == [None]
    assert match_replies([], [a]) == []


def test_a_message_may_be_the_beginning_of_its_reply() -> None:
    a, b = replies("Merhaba, ben Ayşe.", "Tabii, hemen.")
    assert match_replies(["Merhaba, b", "Tabii"], [a, b]) == [a, b]
    assert match_replies(["Merhaba, ben Ayşe. Nasılsınız?"], [a, b]) == [None]
    assert match_replies(["Merhaba", "Merhaba, ben"], [a]) == [None, a]


def test_the_whole_reply_is_preferred_to_a_longer_one() -> None:
    a, b = replies("Tabii, hemen.", "Tabii")
    assert match_replies(["Tabii"], [a, b]) == [b]


def test_a_reply_whose_counts_make_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="2 tokens but 1 counts"):
        Reply((1, 2), (1,), "a", True)
    with pytest.raises(ValueError, match="must not fall"):
        Reply((1, 2), (2, 1), "ab", True)
