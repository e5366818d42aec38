from __future__ import annotations

import numpy as np
import pytest

from voice_llm.simulator.phone import Line, PhoneTurn, SpokenLine, Utterance
from voice_llm.simulator.phone.audio import silence
from voice_llm.simulator.phone.measure import greeting_ms, measure_turns

from .fake_bot import tone

pytestmark = pytest.mark.unit


def said(at_s: float, seconds: float, *, interrupts: bool = False) -> Utterance:
    spoken = SpokenLine(Line(text="x"), tone(seconds), 0, round(seconds * 8000))
    return Utterance(spoken, round(at_s * 8000), interrupts)


def heard(*speech: tuple[float, float], until_s: float = 12.0) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    track = silence(round(until_s * 8000))
    for start_s, end_s in speech:
        sound = tone(end_s - start_s)
        track[round(start_s * 8000) :][: len(sound)] = sound
    return track


def measure(
    bot: np.ndarray[tuple[int], np.dtype[np.int16]], *utterances: Utterance, cut_s: float | None = None
) -> list[PhoneTurn]:
    cuts = [] if cut_s is None else [round(cut_s * 8000)]
    return list(measure_turns(bot, utterances, started_unix_s=100.0, cuts=cuts))


def test_reply_is_measured_from_the_end_of_speech() -> None:
    (turn,) = measure(heard((0, 1), (4.25, 6)), said(2, 1.5))
    assert (turn.speech_start_s, turn.speech_end_s, turn.speech_end_unix_s) == (2, 3.5, 103.5)
    assert turn.voice_to_voice_ms == turn.answer_ms == 750
    assert turn.reply_start_s == 4.25
    assert turn.reply_end_s == pytest.approx(6, abs=0.001)
    assert not turn.barge_in
    assert turn.stop_ms is None


def test_turn_without_a_reply_has_no_latency() -> None:
    first, second = measure(heard((8, 9)), said(2, 1), said(6, 1))
    assert (first.voice_to_voice_ms, second.voice_to_voice_ms) == (None, 1000)


def test_bot_that_speaks_too_early_is_told_apart() -> None:
    (turn,) = measure(heard((2.5, 2.8), (4.5, 6)), said(2, 2))
    assert turn.talked_over
    assert turn.voice_to_voice_ms == 500


def test_barge_in_over_several_sentences_stops_with_the_last_of_them() -> None:
    first, second = measure(heard((2, 3), (3.3, 4.1), (4.3, 4.7), (7, 8)), said(1, 0.5), said(4.0, 2, interrupts=True))
    assert second.barge_in
    assert second.stop_ms == pytest.approx(700, abs=1)
    assert second.voice_to_voice_ms == 1000
    assert first.reply_end_s == pytest.approx(4.7, abs=0.001)
    assert not second.talked_over


def test_reply_that_was_dropped_and_the_one_that_was_kept_are_both_measured() -> None:
    (turn,) = measure(heard((4, 4.2), (6, 8)), said(2, 1.5), cut_s=4.2)
    assert (turn.voice_to_voice_ms, turn.broken_off, turn.answer_ms) == (500, 1, 2500)


def test_cut_by_the_next_line_is_no_dropped_reply() -> None:
    first, second = measure(heard((4, 5.3), (8, 9)), said(2, 1.5), said(5, 1, interrupts=True), cut_s=5.3)
    assert (first.broken_off, second.broken_off) == (0, 0)


def test_greeting_is_what_comes_before_the_caller_speaks() -> None:
    assert greeting_ms(heard((0.4, 1)), [said(2, 1)]) == 400
    assert greeting_ms(heard((4, 5)), [said(2, 1)]) is None
    assert greeting_ms(heard((1, 5)), []) == 1000
