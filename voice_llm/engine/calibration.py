"""Calibration: teach a cost model what this backend costs, in a bounded time, before the first call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ..backend.base import Backend, BatchEntry
from .cost import CostModel, DecodeShape

__all__ = ["calibrate"]

_DECODE_SHARE: Final = 0.5
# Rounds over all numbers of rows: the first run of a size also pays for its graph.
_ROUNDS: Final = 4
_PREFILL_TOKENS: Final = (16, 32, 64, 96, 128, 256, 512, 24, 48, 96)


def calibrate(backend: Backend, cost: CostModel, clock: Callable[[], float], *, budget_s: float = 2.0) -> None:
    """Time steps of several shapes and a state copy; all sequences are empty again afterwards.

    Args:
        backend: Idle, with every sequence empty.
        cost: Learns from each step.
        clock: Monotonic seconds.
        budget_s: No measurement that would end later is begun, but for the first of each kind.
    """
    started_s = clock()
    text = backend.tokenize("The quick brown fox jumps over the lazy dog. ") or [0]
    filler = (text * 512)[: max(_PREFILL_TOKENS)]
    try:
        _time(backend, [BatchEntry(0, 0, filler[: min(16, backend.info.max_batch_tokens)], False)], clock)  # allocates
        _time_decode(backend, cost, clock, filler[0], started_s + budget_s * _DECODE_SHARE)
        _time_prefill(backend, cost, clock, filler, started_s + budget_s)
        cost.copy_ms_per_token = _copy_ms_per_token(backend, clock)
    finally:
        _empty(backend)


def _time_decode(backend: Backend, cost: CostModel, clock: Callable[[], float], token: int, end_s: float) -> None:
    """Time at least one single-token step, however slow the machine; each number of rows once before any twice."""
    measured = False
    for _ in range(_ROUNDS):
        _empty(backend)
        for ids in _id_sets(backend):
            entries = [BatchEntry(i, backend.seq_length(i), (token,), True) for i in ids]
            shape = DecodeShape.of([(e.sequence_id, e.position) for e in entries], split_kv=backend.info.split_kv)
            if measured and clock() + cost.decode_ms(shape) / 1e3 > end_s:
                continue  # a smaller one may still fit
            cost.observe_decode(shape, _time(backend, entries, clock))
            measured = True


def _id_sets(backend: Backend) -> list[Sequence[int]]:
    """Return adjacent sequences of more and more rows, and at the end scattered ones, a micro-batch each."""
    sequences = range(backend.info.sequences)
    most = min(len(sequences), backend.info.max_batch_tokens)
    sets: list[Sequence[int]] = [sequences[:rows] for rows in _row_counts(most)]
    if backend.info.split_kv and most >= 3:
        sets.append(sequences[::2][: min(4, most)])
    return sets


def _row_counts(most: int) -> list[int]:
    """Return 1, 2, 3, 4, 6, 8, 12, 16, 24, ... and ``most``."""
    powers = [2**n for n in range(most.bit_length())]
    return sorted({rows for power in powers for rows in (power, power * 3 // 2) if rows < most} | {most})


def _time_prefill(
    backend: Backend, cost: CostModel, clock: Callable[[], float], filler: list[int], end_s: float
) -> None:
    """Time at least one prefill, short ones first."""
    most = max(1, min(backend.info.context_per_call // 2, backend.info.max_batch_tokens))
    for index, tokens in enumerate([n for n in _PREFILL_TOKENS if n <= most] or [most]):
        if index and clock() + cost.prefill_ms(tokens, 0) / 1e3 > end_s:
            continue
        backend.seq_drop(0)
        cost.observe_prefill(tokens, 0, _time(backend, [BatchEntry(0, 0, filler[:tokens], False)], clock))


def _time(backend: Backend, entries: list[BatchEntry], clock: Callable[[], float]) -> float:
    started_s = clock()
    backend.decode(entries)
    return (clock() - started_s) * 1e3


def _copy_ms_per_token(backend: Backend, clock: Callable[[], float]) -> float:
    length = max(1, backend.seq_length(0))
    started_s = clock()
    backend.seq_restore(backend.info.sequences - 1, backend.seq_save(0))
    return (clock() - started_s) * 1e3 / length


def _empty(backend: Backend) -> None:
    for sequence_id in range(backend.info.sequences):
        backend.seq_drop(sequence_id)
