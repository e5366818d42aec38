"""StepBook: what a step teaches: counters, the cost model, and whoever observes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..backend.base import BatchEntry
from ..observer import Observer
from .cost import CostModel, DecodeShape
from .counters import BatcherCounters

__all__ = ["StepBook"]

# Single-token steps are many and alike: the cost model learns from all of the first ones, then from some.
_LEARN_ALL_STEPS: Final = 64
_LEARN_EVERY: Final = 4


class StepBook:
    """Writes down what steps cost.

    Args:
        cost: Learns from them.
        observer: Is told of them.
        split_kv: Whether each sequence has a KV stream of its own.
    """

    def __init__(self, cost: CostModel, observer: Observer, *, split_kv: bool) -> None:
        self.counters = BatcherCounters()
        self._cost = cost
        self._observer = observer
        self._split_kv = split_kv

    def decoded(self, entries: Sequence[BatchEntry], micro_batches: int, took_ms: float) -> None:
        """Note a batch of single tokens of talking calls."""
        counters = self.counters
        counters.decode_steps += 1
        counters.decode_rows += len(entries)
        counters.decode_micro_batches += micro_batches
        counters.decode_ms += took_ms
        if counters.decode_steps > _LEARN_ALL_STEPS and counters.decode_steps % _LEARN_EVERY:
            return
        contexts = sorted((e.sequence_id, e.position) for e in entries)
        self._cost.observe_decode(DecodeShape.of(contexts, split_kv=self._split_kv), took_ms)

    def prefilled(self, entries: Sequence[BatchEntry], took_ms: float) -> None:
        """Note a batch of prompt chunks."""
        counters = self.counters
        counters.prefill_steps += 1
        counters.prefill_tokens += sum(len(e.tokens) for e in entries)
        counters.prefill_ms += took_ms
        if len(entries) == 1:
            entry = entries[0]
            self._cost.observe_prefill(len(entry.tokens), entry.position, took_ms)

    def step_over(self, entries: Sequence[BatchEntry], took_ms: float, *, decoded: bool) -> None:
        """Note a whole step, planning and sampling included."""
        self.counters.step_ms += took_ms
        self.counters.longest_step_ms = max(self.counters.longest_step_ms, took_ms)
        rows = sum(len(e.tokens) for e in entries)
        self._observer.step("decode" if decoded else "prefill", rows, took_ms / 1e3)
