"""StepBook: what a step teaches: counters, the cost model, and whoever observes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..backend.base import BatchEntry
from ..observer import Observer
from .cost import CostModel, DecodeShape
from .counters import BatcherCounters, PromptKind, Work
from .request import Request, RequestKind

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
        counters, rows = self.counters, len(entries)
        counters.decode_steps += 1
        counters.decode_rows += rows
        counters.decode_micro_batches += micro_batches
        counters.decode_ms += took_ms
        if rows not in counters.decode_by_rows:
            counters.decode_by_rows[rows] = Work()
        counters.decode_by_rows[rows].add(rows, took_ms)
        if counters.decode_steps > _LEARN_ALL_STEPS and counters.decode_steps % _LEARN_EVERY:
            return
        contexts = sorted((e.sequence_id, e.position) for e in entries)
        self._cost.observe_decode(DecodeShape.of(contexts, split_kv=self._split_kv), took_ms)

    def prefilled(self, entries: Sequence[BatchEntry], requests: Sequence[Request], took_ms: float) -> None:
        """Note a batch of prompt chunks, each of the request at its place; before their calls count as begun."""
        counters = self.counters
        counters.prefill_steps += 1
        counters.prefill_ms += took_ms
        tokens_of: dict[PromptKind, int] = {}
        for entry, request in zip(entries, requests, strict=True):
            kind = _prompt_kind(request)
            tokens_of[kind] = tokens_of.get(kind, 0) + len(entry.tokens)
        all_tokens = sum(tokens_of.values())
        counters.prefill_tokens += all_tokens
        for kind, tokens in tokens_of.items():
            counters.prompts[kind].add(tokens, took_ms * tokens / all_tokens)
        if len(entries) == 1:
            self._cost.observe_prefill(all_tokens, entries[0].position, took_ms)

    def step_over(
        self, entries: Sequence[BatchEntry], took_ms: float, *, decoded: bool, copies_ms: float = 0.0
    ) -> None:
        """Note a whole step, planning and sampling included.

        Args:
            entries: What was decoded; empty where there was nothing to decode.
            took_ms: The step's time.
            decoded: Whether the entries were single tokens of talking calls.
            copies_ms: How much of it went into beginning requests.
        """
        counters = self.counters
        counters.step_ms += took_ms
        counters.copies_ms += copies_ms
        if not entries:
            return
        counters.longest_step_ms = max(counters.longest_step_ms, took_ms)
        rows = sum(len(e.tokens) for e in entries)
        self._observer.step("decode" if decoded else "prefill", rows, took_ms / 1e3)


def _prompt_kind(request: Request) -> PromptKind:
    if not request.call.seeded:
        return PromptKind.OPENING
    return PromptKind.TURN if request.kind is RequestKind.TURN else PromptKind.HINT
