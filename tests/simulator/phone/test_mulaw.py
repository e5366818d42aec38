from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.simulator.phone import mulaw

pytestmark = pytest.mark.unit

# First and last code of G.711's segments, from the quietest up, and what they stand for in 16 bits.
KNOWN = {0xFF: 0, 0xF0: 120, 0xEF: 132, 0xE0: 372, 0xDF: 396, 0xD0: 876, 0xCF: 924, 0xBF: 1980, 0xAF: 4092}
KNOWN |= {0x9F: 8316, 0x8F: 16764, 0x80: 32124, 0x7F: 0, 0x6F: -132, 0x0F: -16764, 0x00: -32124}


@pytest.mark.parametrize(("code", "value"), KNOWN.items())
def test_codes_stand_for_the_values_of_the_standard(code: int, value: int) -> None:
    assert mulaw.decode(bytes([code])).tolist() == [value]


def test_silence_is_all_ones() -> None:
    assert mulaw.encode(np.zeros(2, np.int16)) == bytes([mulaw.SILENCE_BYTE] * 2) == b"\xff\xff"


def test_each_code_comes_back_as_itself() -> None:
    codes = bytes(code for code in range(256) if code != 0x7F)  # 0x7F is a negative zero
    assert mulaw.encode(mulaw.decode(codes)) == codes


@pytest.mark.parametrize(("sample", "code"), [(32767, 0x80), (-32768, 0x00), (32635, 0x80), (-1, 0x7F), (1, 0xFF)])
def test_extremes_are_clipped_and_keep_their_sign(sample: int, code: int) -> None:
    assert mulaw.encode(np.array([sample], np.int16)) == bytes([code])


@given(st.lists(st.integers(-32768, 32767), max_size=50))
def test_round_trip_is_off_by_half_a_step_at_most(samples: list[int]) -> None:
    linear = np.array(samples, np.int16)
    error = np.abs(mulaw.decode(mulaw.encode(linear)).astype(int) - linear)
    step = 2.0 ** np.clip(np.frexp(np.minimum(np.abs(linear.astype(int)), 32635) + 132)[1] - 5, 3, None)
    clipped = np.maximum(np.abs(linear.astype(int)) - 32635, 0)
    assert np.all(error <= step / 2 + clipped)
