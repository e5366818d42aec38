"""What was heard of a reply is what stays in the history."""

import pytest

from voice_llm.prompt import Message
from voice_llm.session import History, Playback
from voice_llm.testing import VirtualClock

pytestmark = pytest.mark.unit


def playback(*chunks: str, chars_per_s: float = 10) -> tuple[Playback, VirtualClock]:
    clock = VirtualClock()
    result = Playback(chars_per_s, clock)
    for chunk in chunks:
        result.sent(chunk)
    return result, clock


def test_without_reports_the_speaking_rate_says_what_was_heard() -> None:
    """Text sent at once is heard at the rate of speech, cut at a word's end."""
    heard, clock = playback("Yes, it is covered. ", "Shall I go on?")
    assert heard.heard() == ""
    clock.advance(1.0)
    assert heard.heard() == "Yes, it is"
    clock.advance(60.0)
    assert heard.heard() == "Yes, it is covered. Shall I go on?"


def test_reports_count_more_than_the_estimate() -> None:
    """All chunks before the reported one were heard, that one as far as it was played."""
    heard, clock = playback("One two. ", "Three four. ", "Five.")
    clock.advance(60.0)
    heard.played(1, 600)
    assert heard.heard() == "One two. Three"
    heard.played(0, 100)
    assert heard.heard() == "One two. Three", "an older report takes nothing back"


def test_a_report_for_a_chunk_not_sent_yet_counts_all_before_it() -> None:
    """A transport that runs ahead with its index is not an error."""
    heard, _ = playback("One. ")
    heard.played(5, 100)
    assert heard.heard() == "One. "


def test_what_was_heard_stays_as_it_was_once_the_voice_has_stopped() -> None:
    """Only a report that comes late still counts."""
    heard, clock = playback("Yes, it is covered. ")
    clock.advance(1.0)
    heard.stop()
    clock.advance(60.0)
    heard.stop()
    assert heard.heard() == "Yes, it is"
    heard.played(0, 400)
    assert heard.heard() == "Yes,"


def test_a_report_that_makes_no_sense_means_that_nothing_was_heard() -> None:
    """Reports come over the wire: a negative time or index must not end the call."""
    heard, _ = playback("One. ")
    heard.played(-1, 5000)
    heard.played(0, -5)
    assert heard.heard() == ""
    heard.played(1, -100)
    assert heard.heard() == "One. "


def question(text: str) -> Message:
    return Message("user", text)


def test_reply_takes_the_place_of_what_was_said_to_the_same_question() -> None:
    """The correction comes after the reply was complete."""
    history = History()
    hello = question("Hi")
    history.add(hello)
    history.answer(hello, [Message("assistant", "Good morning. How can I help?")])
    history.answer(hello, [Message("assistant", "Good morning.")])
    assert history.messages == [hello, Message("assistant", "Good morning.")]
    history.answer(hello, [])
    assert history.messages == [hello]


def test_nothing_is_corrected_once_the_caller_has_spoken() -> None:
    """Even where the caller said the very same words again."""
    history = History("Be brief.")
    first, second = question("Hi"), question("Hi")
    history.add(first)
    history.add(second)
    history.answer(first, [Message("assistant", "Good morning.")])
    assert [m.role for m in history.messages] == ["system", "user", "user"]


def test_taking_back_a_question_removes_just_that_one() -> None:
    """Even where the same words were said before."""
    history = History()
    first, second = question("Hi"), question("Hi")
    history.add(first)
    history.add(second)
    history.take_back(second)
    assert history.messages == [first]
    assert history.messages[0] is first
    history.take_back(second)
    assert len(history) == 1


class TestRoom:
    """Text that no prompt can hold is not kept."""

    def told(self, history: History, *texts: str) -> None:
        for text in texts:
            asked = question(text)
            history.add(asked)
            history.answer(asked, [Message("assistant", "Tamam.")])

    def test_oldest_turns_are_forgotten_whole_and_the_instructions_stay(self) -> None:
        history = History("Be brief.", [Message("assistant", "Hello."), question("Hi")], room_tokens=100)
        self.told(history, "a" * 300, "b" * 300, "c" * 300)
        assert [m.content[:1] for m in history.messages] == ["B", "b", "T", "c", "T"]

    def test_last_turn_stays_however_long_it_is(self) -> None:
        history = History(room_tokens=10)
        self.told(history, "a", "b" * 300)
        assert [m.content[:1] for m in history.messages] == ["b", "T"]

    def test_question_that_is_refused_costs_nothing(self) -> None:
        history = History(room_tokens=100)
        self.told(history, "a" * 300)
        before = history.messages
        refused = question("b" * 3000)
        history.add(refused)
        history.take_back(refused)
        assert history.messages == before

    def test_short_turns_are_not_free(self) -> None:
        history = History(room_tokens=100)
        self.told(history, *["x"] * 1000)
        assert len(history) < 30

    def test_what_was_given_and_retrieved_counts(self) -> None:
        history = History(room_tokens=100)
        for letter in "abc":
            asked = Message("user", letter, rag_context="x" * 300)
            history.add(asked)
            history.answer(asked, ())
        assert [m.content for m in history.messages] == ["b", "c"]
