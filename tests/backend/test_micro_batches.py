from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.backend.base import BatchEntry
from voice_llm.backend.micro_batches import count_micro_batches

pytestmark = pytest.mark.unit

Batch = list[tuple[int, int]]
BATCHES = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 9)), min_size=1, max_size=8, unique_by=lambda e: e[0])


def entries(batch: Batch) -> list[BatchEntry]:
    return [BatchEntry(sequence_id, 0, [1] * count, True) for sequence_id, count in batch]


def split_equal(rows: Sequence[int], n_ubatch: int) -> int:
    """``llama_batch_allocr::split_equal(n_ubatch, true, 0)``, token by token, until all are used."""
    used = [False] * len(rows)
    count = 0
    while not all(used):
        group: list[int] = []
        for i, sequence_id in enumerate(rows):
            if used[i] or sequence_id in group:
                continue
            if not group or sequence_id == group[-1] + 1:
                group.append(sequence_id)
                if len(group) > n_ubatch:
                    break
        waiting = {s: [i for i, r in enumerate(rows) if r == s and not used[i]] for s in group}
        taken = 0
        while all(waiting.values()):
            for sequence_id in group:
                used[waiting[sequence_id].pop(0)] = True
            taken += 1
            if (taken + 1) * len(group) > n_ubatch:
                break
        count += 1
    return count


@given(BATCHES, st.integers(1, 16))
def test_split_kv_counts_what_llama_cpp_cuts(batch: Batch, micro_batch_tokens: int) -> None:
    rows = [sequence_id for sequence_id, count in batch for _ in range(count)]
    counted = count_micro_batches(entries(batch), split_kv=True, micro_batch_tokens=micro_batch_tokens)
    assert counted == split_equal(rows, micro_batch_tokens)


@given(BATCHES, st.integers(1, 16))
def test_unified_kv_cuts_by_size_alone(batch: Batch, micro_batch_tokens: int) -> None:
    total = sum(count for _, count in batch)
    counted = count_micro_batches(entries(batch), split_kv=False, micro_batch_tokens=micro_batch_tokens)
    assert (counted - 1) * micro_batch_tokens < total <= counted * micro_batch_tokens


@pytest.mark.parametrize(
    ("ids", "micro_batches"),
    [([0, 1, 2, 3], 1), ([0, 2, 4, 6], 4), ([3, 2, 1, 0], 4), ([2, 3, 7, 8], 2), ([5], 1)],
)
def test_single_tokens_share_a_micro_batch_where_ids_ascend_without_a_gap(ids: list[int], micro_batches: int) -> None:
    batch = [(i, 1) for i in ids]
    assert count_micro_batches(entries(batch), split_kv=True, micro_batch_tokens=512) == micro_batches


def test_sorting_the_rows_is_what_makes_a_descending_batch_one_micro_batch() -> None:
    batch = sorted((i, 1) for i in [3, 2, 1, 0])
    assert count_micro_batches(entries(batch), split_kv=True, micro_batch_tokens=512) == 1


def test_rows_of_different_lengths_do_not_share_their_whole_length() -> None:
    assert count_micro_batches(entries([(0, 1), (1, 40)]), split_kv=True, micro_batch_tokens=512) == 2
    assert count_micro_batches(entries([(0, 1), (1, 40)]), split_kv=False, micro_batch_tokens=512) == 1
