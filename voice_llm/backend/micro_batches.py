"""How llama.cpp cuts a batch into micro-batches, so that schedulers, fakes and metrics agree with it."""

from __future__ import annotations

from collections.abc import Sequence

from .base import BatchEntry


def count_micro_batches(entries: Sequence[BatchEntry], *, split_kv: bool, micro_batch_tokens: int) -> int:
    """Count the micro-batches of a batch.

    With unified KV, tokens are cut into pieces of ``micro_batch_tokens``. With split KV, a micro-batch takes equally
    many tokens of sequences whose ids ascend without a gap (``llama_batch_allocr::split_equal`` with ``sequential``).
    """
    if len(entries) == 1 and len(entries[0].tokens) <= micro_batch_tokens:
        return 1
    left = {e.sequence_id: len(e.tokens) for e in entries}
    if not split_kv:
        return -(-sum(left.values()) // micro_batch_tokens)
    order = [e.sequence_id for e in entries]
    count = 0
    while left:
        group = _next_group(order, left, micro_batch_tokens)
        taken = max(1, min(min(left[s] for s in group), micro_batch_tokens // len(group)))
        for sequence_id in group:
            left[sequence_id] -= taken
            if not left[sequence_id]:
                del left[sequence_id]
        count += 1
    return count


def _next_group(order: Sequence[int], left: dict[int, int], most: int) -> list[int]:
    group: list[int] = []
    for sequence_id in order:
        if sequence_id in left and (not group or sequence_id == group[-1] + 1):
            group.append(sequence_id)
            # llama.cpp stops only once it has one sequence too many.
            if len(group) > most:
                break
    return group
