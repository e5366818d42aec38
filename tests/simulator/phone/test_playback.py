from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.simulator.phone import Playback

pytestmark = pytest.mark.unit


def sound(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.array(values, np.int16)


def test_what_comes_in_is_played_in_order_and_filled_up_with_silence() -> None:
    playback = Playback()
    playback.receive(sound(1, 2, 3))
    playback.receive(sound(4, 5))
    assert playback.play(4)[0].tolist() == [1, 2, 3, 4]
    assert playback.play(4)[0].tolist() == [5, 0, 0, 0]


def test_mark_is_reached_when_what_came_before_has_been_played() -> None:
    playback = Playback()
    playback.receive(sound(1, 2, 3))
    playback.mark("end")
    playback.receive(sound(4))
    assert playback.play(2)[1] == []
    assert playback.play(1)[1] == ["end"]


def test_mark_without_sound_before_it_is_reached_at_once() -> None:
    playback = Playback()
    playback.mark("now")
    assert playback.play(1)[1] == ["now"]


def test_clear_drops_what_is_unplayed_and_gives_its_marks_back() -> None:
    playback = Playback()
    playback.receive(sound(1, 2, 3))
    playback.mark("lost")
    playback.play(1)
    assert playback.clear() == ["lost"]
    assert playback.unplayed_samples == 0
    playback.receive(sound(9))
    assert playback.play(2)[0].tolist() == [9, 0]


Step = tuple[str, int]
STEPS = st.lists(st.tuples(st.sampled_from(["receive", "play", "clear", "mark"]), st.integers(0, 9)), max_size=60)


@given(STEPS)
def test_what_is_played_is_what_was_sent_minus_what_was_cleared_in_order(steps: list[Step]) -> None:
    playback = Playback()
    waiting: list[int] = []
    marks_due: list[tuple[int, str]] = []
    sent = played = cleared = 0
    for number, (what, size) in enumerate(steps):
        match what:
            case "receive":
                values = list(range(sent + 1, sent + size + 1))
                playback.receive(sound(*values))
                waiting += values
                sent += size
            case "mark":
                playback.mark(str(number))
                marks_due.append((played + len(waiting), str(number)))
            case "clear":
                assert playback.clear() == [name for _, name in marks_due]
                cleared += len(waiting)
                waiting, marks_due = [], []
            case "play":
                heard, marks = playback.play(size)
                expected = waiting[:size]
                assert heard.tolist() == expected + [0] * (size - len(expected))
                waiting = waiting[size:]
                played += len(expected)
                assert marks == [name for at, name in marks_due if at <= played]
                marks_due = [(at, name) for at, name in marks_due if at > played]
        assert playback.unplayed_samples == len(waiting) == sent - played - cleared
