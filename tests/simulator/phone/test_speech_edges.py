from __future__ import annotations

import numpy as np
import pytest

from voice_llm.simulator.phone.audio import line_noise, silence
from voice_llm.simulator.phone.speech_edges import first_audible, last_audible, speech_regions

from .fake_bot import tone

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("start", [0, 1, 79, 80, 803])
def test_edges_are_found_to_the_sample_in_line_noise(start: int) -> None:
    samples = line_noise(3000, -60.0)
    samples[start : start + 1000] = tone(0.125)
    assert first_audible(samples) == start
    assert abs((last_audible(samples) or 0) - (start + 1000)) <= 3  # the sine may end near zero


def test_line_noise_and_silence_are_not_speech() -> None:
    for quiet in (line_noise(8000, -60.0), silence(8000), silence(0)):
        assert first_audible(quiet) is None
        assert last_audible(quiet) is None


def test_pauses_below_the_gap_do_not_end_a_stretch() -> None:
    samples = np.concatenate([tone(0.1), silence(2400), tone(0.1), silence(8000), tone(0.1)])
    edges = speech_regions(samples, merge_gap_s=0.5)
    assert [start for start, _ in edges] == [0, 800 + 2400 + 800 + 8000]
    assert len(speech_regions(samples)) == 3
