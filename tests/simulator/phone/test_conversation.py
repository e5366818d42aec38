from __future__ import annotations

import numpy as np
import pytest

from voice_llm.simulator.phone import Conversation, Line, Manners, NoReplyError, Samples, SpokenLine
from voice_llm.simulator.phone.audio import silence

from .fake_bot import tone

pytestmark = pytest.mark.unit

QUIET = silence(160)
LOUD = tone(0.02)
FRAMES_PER_S = 50


def line(*, pause_s: float = 0.2, barge_in_after_s: float | None = None) -> SpokenLine:
    return SpokenLine.cut(Line(text="x", pause_s=pause_s, barge_in_after_s=barge_in_after_s), tone(0.1))


def spend(conversation: Conversation, frame: Samples, seconds: float) -> None:
    for _ in range(round(seconds * FRAMES_PER_S)):
        conversation.step(frame)


def test_caller_does_not_speak_before_the_greeting_has_ended() -> None:
    conversation = Conversation([line()])
    spend(conversation, QUIET, 3)
    spend(conversation, LOUD, 1)
    spend(conversation, QUIET, 0.18)
    assert conversation.utterances == []
    conversation.step(QUIET)
    assert [utterance.start for utterance in conversation.utterances] == [round(4.2 * 8000)]


def test_pause_inside_a_reply_is_not_its_end() -> None:
    conversation = Conversation([line()])
    for _ in range(5):
        spend(conversation, LOUD, 0.5)
        spend(conversation, QUIET, 0.16)
    assert conversation.utterances == []


def test_barge_in_waits_for_speech_and_not_for_a_pause_of_it() -> None:
    conversation = Conversation([line(pause_s=1.0, barge_in_after_s=0.5)])
    spend(conversation, LOUD, 0.4)
    spend(conversation, QUIET, 0.3)
    assert conversation.utterances == []
    conversation.step(LOUD)
    assert [utterance.interrupts for utterance in conversation.utterances] == [True]


def test_reply_too_short_to_be_interrupted_is_answered_as_usual() -> None:
    conversation = Conversation([line(barge_in_after_s=2.0)])
    spend(conversation, LOUD, 0.5)
    spend(conversation, QUIET, 0.3)
    assert [utterance.interrupts for utterance in conversation.utterances] == [False]


def test_after_a_dropped_reply_the_caller_listens_for_another() -> None:
    conversation = Conversation([line(), line()], Manners(dropped_reply_timeout_s=2.0))
    spend(conversation, LOUD, 0.1)
    conversation.reply_dropped()
    spend(conversation, QUIET, 1.5)
    assert conversation.utterances == []
    spend(conversation, QUIET, 0.5)
    assert len(conversation.utterances) == 1  # no use waiting any longer
    spend(conversation, QUIET, 0.2)
    spend(conversation, LOUD, 0.1)
    conversation.reply_dropped()
    spend(conversation, LOUD, 1.0)
    spend(conversation, QUIET, 0.3)
    assert len(conversation.utterances) == 2


def test_patience_ends_after_the_time_that_was_given() -> None:
    conversation = Conversation([line()], Manners(wait_for_greeting=False, reply_timeout_s=1.0))
    spend(conversation, QUIET, 0.2)
    assert len(conversation.utterances) == 1
    spend(conversation, QUIET, 1.0)
    with pytest.raises(NoReplyError, match="turn 1"):
        spend(conversation, QUIET, 0.2)


def test_last_reply_is_heard_to_its_end_before_hanging_up() -> None:
    conversation = Conversation([line()], Manners(wait_for_greeting=False, pause_s=0.5))
    spend(conversation, QUIET, 0.5)
    assert not conversation.answered
    spend(conversation, LOUD, 1.0)
    assert conversation.answered
    spend(conversation, QUIET, 0.4)
    assert not conversation.finished
    spend(conversation, QUIET, 0.1)
    assert conversation.finished


@pytest.mark.parametrize("noise_dbfs", [-60.0, -30.0])
def test_speech_is_said_over_the_noise_of_the_line(noise_dbfs: float) -> None:
    spoken = line()
    conversation = Conversation([spoken], Manners(wait_for_greeting=False, noise_dbfs=noise_dbfs))
    said = np.concatenate([conversation.step(QUIET) for _ in range(40)]).astype(float)
    start = conversation.utterances[0].start
    beside = said[start : start + len(spoken.samples)] - spoken.samples
    for noise in (beside, said[:start]):
        assert 20 * np.log10(np.sqrt(np.mean(noise**2)) / 32768) == pytest.approx(noise_dbfs, abs=1.0)
