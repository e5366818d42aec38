"""Calibration: teach a cost model what this backend costs, in a bounded time, before the first call."""

from __future__ import annotations

from collections.abc import Callable

from ..backend.base import Backend, BatchEntry
from .cost import CostModel, DecodeShape

__all__ = ["calibrate"]


def calibrate(backend: Backend, cost: CostModel, clock: Callable[[], float], *, budget_s: float = 2.0) -> None:
    """Time steps of several shapes and a state copy; all sequences are empty again afterwards.

    Args:
        backend: Idle, with every sequence empty.
        cost: Learns from each step.
        clock: Monotonic seconds.
        budget_s: No new measurement starts after this long.
    """
    end_s = clock() + budget_s
    text = backend.tokenize("The quick brown fox jumps over the lazy dog. ") or [0]
    sequences = range(backend.info.sequences)
    filler = (text * 128)[:128]
    try:
        _time(backend, [BatchEntry(0, 0, filler[:32], False)], clock)  # the first step also allocates
        for tokens in (96, 32, 16, 64, 96):
            if clock() > end_s or not _prefill_fits(backend, tokens):
                break
            backend.seq_drop(0)
            backend_ms = _time(backend, [BatchEntry(0, 0, filler[:tokens], False)], clock)
            cost.observe_prefill(tokens, 0, backend_ms)
        cost.copy_ms_per_token = _copy_ms_per_token(backend, clock)
        for rows in (1, 2, 4, 8, 16, 1, 4, 8):
            if clock() > end_s or rows > min(len(sequences), backend.info.max_batch_tokens):
                break
            for ids in (range(rows), range(0, len(sequences), 2)[:rows]):
                entries = [BatchEntry(i, backend.seq_length(i), (filler[0],), True) for i in ids]
                shape = DecodeShape.of([(e.sequence_id, e.position) for e in entries], split_kv=backend.info.split_kv)
                cost.observe_decode(shape, _time(backend, entries, clock))
    finally:
        for sequence_id in sequences:
            backend.seq_drop(sequence_id)


def _prefill_fits(backend: Backend, tokens: int) -> bool:
    return tokens <= min(backend.info.context_per_call // 2, backend.info.max_batch_tokens)


def _time(backend: Backend, entries: list[BatchEntry], clock: Callable[[], float]) -> float:
    started_s = clock()
    backend.decode(entries)
    return (clock() - started_s) * 1e3


def _copy_ms_per_token(backend: Backend, clock: Callable[[], float]) -> float:
    length = max(1, backend.seq_length(0))
    started_s = clock()
    backend.seq_restore(backend.info.sequences - 1, backend.seq_save(0))
    return (clock() - started_s) * 1e3 / length
