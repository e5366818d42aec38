"""Placement: talking calls on adjacent sequence ids, so that they share a micro-batch.

With split KV, llama.cpp packs rows of ids that ascend without a gap into one micro-batch and pays for each further
run as for a step of its own. So a turn that starts away from the other talkers is rehomed beside them first: its KV
is saved and restored under another id, or exchanged with that of an idle call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..backend.base import Backend
from ..errors import BackendError
from .cost import CostModel
from .counters import BatcherCounters
from .pool import ContextPool, KVSequence

__all__ = ["Placement"]

# What a turn's reply is expected to take, in steps: each of them would pay for the extra micro-batch.
_EXPECTED_STEPS: Final = 30


class Placement:
    """Decides where a call's sequence should lie, and moves it.

    Args:
        backend: Moves the KV.
        pool: Knows who holds which id.
        cost: Says what a micro-batch and a copy cost; copies that are made are learned.
        counters: Counts moves.
        max_ms: Longest move, by prediction.
    """

    def __init__(
        self, backend: Backend, pool: ContextPool, cost: CostModel, counters: BatcherCounters, *, max_ms: float
    ) -> None:
        self._backend = backend
        self._pool = pool
        self._cost = cost
        self._counters = counters
        self._max_ms = max_ms

    def bring_near(
        self, sequence: KVSequence, talkers: Iterable[KVSequence], *, busy: Iterable[KVSequence] = ()
    ) -> bool:
        """Move a sequence beside the talkers where that pays; returns whether it was moved.

        Args:
            sequence: Which to move.
            talkers: Those that single-token steps are made of.
            busy: Others that work is going on in, and that stay where they are.

        Raises:
            BackendError: The move failed; all sequences that had a part in it are empty.
        """
        talking = {s.id for s in talkers}
        fixed = talking | {s.id for s in busy}
        if not self._backend.info.split_kv or not talking or {sequence.id - 1, sequence.id + 1} & talking:
            return False
        target = self._best_target(sequence, talking, fixed)
        if target is None:
            return False
        other = self._pool.holder(target)
        gain_ms = self._cost.micro_batch_ms * _EXPECTED_STEPS
        if self._copy_ms(sequence, other) > min(gain_ms, self._max_ms):
            return False
        self._move(sequence, target, other)
        return True

    def _best_target(self, sequence: KVSequence, talking: set[int], fixed: set[int]) -> int | None:
        """Return the neighbour of a talker that is cheapest to take: closing a gap first, then a free id."""
        around = {n for t in talking for n in (t - 1, t + 1)} - fixed - {sequence.id}
        candidates = [n for n in around if 0 <= n < self._pool.size]
        if not candidates:
            return None

        def rank(target: int) -> tuple[int, float, int]:
            neighbours = ((target - 1) in talking) + ((target + 1) in talking)
            return (-neighbours, self._copy_ms(sequence, self._pool.holder(target)), target)

        return min(candidates, key=rank)

    def _copy_ms(self, sequence: KVSequence, other: KVSequence | None) -> float:
        tokens = len(sequence.tokens) + (len(other.tokens) if other else 0)
        return tokens * self._cost.copy_ms_per_token

    def _move(self, sequence: KVSequence, target: int, other: KVSequence | None) -> None:
        source = sequence.id
        try:
            state = self._backend.seq_save(source) if sequence.tokens else None
            other_state = self._backend.seq_save(target) if other is not None and other.tokens else None
            for state_there, place in ((other_state, source), (state, target)):
                if state_there is None:
                    self._backend.seq_drop(place)
                else:
                    self._backend.seq_restore(place, state_there)
        except BackendError:
            self._empty(sequence, other, target)
            raise
        if other is None:
            self._pool.move(sequence, target)
        else:
            self._pool.swap(sequence, other)
        self._counters.rehomed += 1

    def _empty(self, sequence: KVSequence, other: KVSequence | None, target: int) -> None:
        for place in (sequence.id, target):
            self._backend.seq_drop(place)
        sequence.tokens = []
        if other is not None:
            other.tokens = []
