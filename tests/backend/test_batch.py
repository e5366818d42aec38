from __future__ import annotations

import pytest

from voice_llm.backend.base import BatchEntry
from voice_llm.backend.llama.batch import NativeBatch

pytestmark = pytest.mark.unit


def test_each_token_carries_its_position_and_sequence() -> None:
    batch = NativeBatch(8)
    batch.fill([BatchEntry(3, 10, [7, 8, 9], True), BatchEntry(1, 0, [5], False)])
    native = batch.native
    assert native.n_tokens == 4
    assert [native.token[i] for i in range(4)] == [7, 8, 9, 5]
    assert [native.pos[i] for i in range(4)] == [10, 11, 12, 0]
    assert [native.seq_id[i][0] for i in range(4)] == [3, 3, 3, 1]
    assert [native.n_seq_id[i] for i in range(4)] == [1] * 4


def test_only_the_last_token_of_an_entry_that_asks_has_logits() -> None:
    batch = NativeBatch(8)
    rows = batch.fill([BatchEntry(0, 0, [1, 2], True), BatchEntry(1, 0, [3], False), BatchEntry(2, 0, [4], True)])
    assert rows == [1, -1, 3]
    assert [batch.native.logits[i] for i in range(4)] == [0, 1, 0, 1]


def test_a_refill_forgets_what_was_there() -> None:
    batch = NativeBatch(8)
    batch.fill([BatchEntry(0, 0, [1, 2, 3], True)])
    assert batch.fill([BatchEntry(1, 0, [4, 5, 6, 7], True)]) == [3]
    assert [batch.native.logits[i] for i in range(4)] == [0, 0, 0, 1]
