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
        budget_s: No new measurement starts after this long, but for the first of each kind.
    """
    started_s = clock()
    text = backend.tokenize("The quick brown fox jumps over the lazy dog. ") or [0]
    filler = (text * 128)[:128]
    try:
        _time(backend, [BatchEntry(0, 0, filler[: min(16, backend.info.max_batch_tokens)], False)], clock)  # allocates
        _time_decode(backend, cost, clock, filler[0], started_s + budget_s / 2)
        _time_prefill(backend, cost, clock, filler, started_s + budget_s)
        cost.copy_ms_per_token = _copy_ms_per_token(backend, clock)
    finally:
        for sequence_id in range(backend.info.sequences):
            backend.seq_drop(sequence_id)


def _time_decode(backend: Backend, cost: CostModel, clock: Callable[[], float], token: int, end_s: float) -> None:
    """Time at least one single-token step, however slow the machine."""
    sequences = range(backend.info.sequences)
    most = min(len(sequences), backend.info.max_batch_tokens)
    for rows in [n for n in (1, 2, 4, 8, 16, 1, 4, 8) if n <= most]:
        for ids in (sequences[:rows], sequences[::2][:rows]):
            entries = [BatchEntry(i, backend.seq_length(i), (token,), True) for i in ids]
            shape = DecodeShape.of([(e.sequence_id, e.position) for e in entries], split_kv=backend.info.split_kv)
            cost.observe_decode(shape, _time(backend, entries, clock))
            if clock() > end_s:
                return


def _time_prefill(
    backend: Backend, cost: CostModel, clock: Callable[[], float], filler: list[int], end_s: float
) -> None:
    """Time at least one prefill, short ones first."""
    most = max(1, min(backend.info.context_per_call // 2, backend.info.max_batch_tokens))
    for tokens in [n for n in (16, 32, 64, 96, 96) if n <= most] or [most]:
        backend.seq_drop(0)
        cost.observe_prefill(tokens, 0, _time(backend, [BatchEntry(0, 0, filler[:tokens], False)], clock))
        if clock() > end_s:
            return


def _time(backend: Backend, entries: list[BatchEntry], clock: Callable[[], float]) -> float:
    started_s = clock()
    backend.decode(entries)
    return (clock() - started_s) * 1e3


def _copy_ms_per_token(backend: Backend, clock: Callable[[], float]) -> float:
    length = max(1, backend.seq_length(0))
    started_s = clock()
    backend.seq_restore(backend.info.sequences - 1, backend.seq_save(0))
    return (clock() - started_s) * 1e3 / length
