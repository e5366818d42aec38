"""Placement: talkers on adjacent ids, where that pays."""

from __future__ import annotations

import pytest

from voice_llm.backend import BatchEntry, SavedState
from voice_llm.engine import BatcherCounters, ContextPool, CostModel, KVSequence
from voice_llm.engine.placement import Placement
from voice_llm.errors import BackendError
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit


class Restless(FakeBackend):
    """A backend whose restores fail where told."""

    fails_at: int | None = None

    def seq_restore(self, sequence_id: int, state: SavedState) -> None:
        if sequence_id == self.fails_at:
            self.seq_drop(sequence_id)
            raise BackendError("the state does not fit")
        super().seq_restore(sequence_id, state)


class Floor:
    """A pool with every sequence held and filled with tokens that tell whose they are."""

    def __init__(
        self, *, size: int = 8, free: tuple[int, ...] = (), split_kv: bool = True, max_ms: float = 100.0
    ) -> None:
        self.backend = Restless(sequences=size, split_kv=split_kv)
        self.pool = ContextPool(size)
        self.cost = CostModel()
        self.counters = BatcherCounters()
        self.placement = Placement(self.backend, self.pool, self.cost, self.counters, max_ms=max_ms)
        self.calls = [self.pool.acquire(f"call-{i}") for i in range(size)]
        for sequence in self.calls:
            if sequence.id in free:
                self.pool.release(sequence)
            else:
                self.fill(sequence, [sequence.id] * (10 + sequence.id))

    def fill(self, sequence: KVSequence, tokens: list[int]) -> None:
        self.backend.decode([BatchEntry(sequence.id, len(sequence.tokens), tokens, False)])
        sequence.tokens += tokens

    def bring_near(self, call: int, *talkers: int) -> bool:
        return self.placement.bring_near(self.calls[call], [self.calls[t] for t in talkers])

    def check(self) -> None:
        self.pool.check_integrity(self.backend.seq_length)
        for sequence in self.pool.held:
            assert self.backend.tokens_of(sequence.id) == sequence.tokens


def test_turn_moves_to_a_free_id_beside_a_talker() -> None:
    floor = Floor(free=(1,))
    assert floor.bring_near(5, 0)
    assert floor.calls[5].id == 1
    assert floor.backend.seq_length(5) == 0
    assert floor.counters.rehomed == 1
    floor.check()


def test_turn_changes_places_with_an_idle_neighbour_of_a_talker() -> None:
    floor = Floor()
    assert floor.bring_near(5, 2)
    assert (floor.calls[5].id, floor.calls[1].id) == (1, 5)
    floor.check()


def test_gap_between_two_talkers_is_closed_first() -> None:
    floor = Floor(free=(0,))
    assert floor.bring_near(7, 1, 3)
    assert floor.calls[7].id == 2
    floor.check()


def test_talkers_themselves_are_never_moved() -> None:
    floor = Floor()
    assert floor.bring_near(5, 0, 1)
    assert [floor.calls[i].id for i in (0, 1, 5)] == [0, 1, 2]
    floor.check()


@pytest.mark.parametrize(("call", "talkers"), [(3, ()), (3, (2,)), (3, (4, 7))])
def test_turn_stays_where_it_is_without_talkers_or_beside_one(call: int, talkers: tuple[int, ...]) -> None:
    floor = Floor()
    assert not floor.bring_near(call, *talkers)
    assert floor.calls[call].id == call
    assert floor.counters.rehomed == 0


def test_unified_kv_needs_no_moves() -> None:
    assert not Floor(split_kv=False).bring_near(5, 0)


def test_move_that_costs_more_than_it_saves_is_not_made() -> None:
    floor = Floor()
    floor.cost.copy_ms_per_token = 20.0
    assert not floor.bring_near(5, 0)
    floor.cost.copy_ms_per_token = 0.1
    assert floor.bring_near(5, 0)


def test_move_longer_than_a_step_is_not_made() -> None:
    floor = Floor(max_ms=1.0)
    floor.cost.copy_ms_per_token = 0.1
    assert not floor.bring_near(5, 0)


def test_empty_sequence_moves_without_a_copy() -> None:
    floor = Floor(free=(6,))
    newcomer = floor.pool.acquire("newcomer")
    assert floor.placement.bring_near(newcomer, [floor.calls[0]])
    assert newcomer.id == 1
    assert floor.calls[1].id == 6
    floor.check()


@pytest.mark.parametrize("fails_at", [1, 5])
def test_failed_move_leaves_both_sequences_empty_and_the_others_alone(fails_at: int) -> None:
    floor = Floor()
    floor.backend.fails_at = fails_at
    with pytest.raises(BackendError, match="does not fit"):
        floor.bring_near(5, 0)
    assert floor.calls[5].tokens == floor.calls[1].tokens == []
    assert floor.calls[2].tokens == [2] * 12
    assert floor.counters.rehomed == 0
    floor.check()
