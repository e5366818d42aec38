"""ContextPool: every sequence id is held or free, once."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from voice_llm.engine import ContextPool, KVSequence
from voice_llm.errors import EngineError

pytestmark = pytest.mark.unit

SIZE = 5


class PoolMachine(RuleBasedStateMachine):
    """Any order of operations against a plain dictionary of id to owner."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ContextPool(SIZE)
        self.held: dict[int, KVSequence] = {}
        self.released: list[KVSequence] = []
        self.taken = 0

    def pick(self, data: st.DataObject) -> KVSequence:
        return self.held[data.draw(st.sampled_from(sorted(self.held)))]

    @precondition(lambda self: len(self.held) < SIZE)
    @rule()
    def acquire(self) -> None:
        self.taken += 1
        lowest = min(set(range(SIZE)) - set(self.held))
        sequence = self.pool.acquire(f"call-{self.taken}")
        assert (sequence.id, sequence.owner, sequence.tokens) == (lowest, f"call-{self.taken}", [])
        self.held[sequence.id] = sequence

    @precondition(lambda self: len(self.held) == SIZE)
    @rule()
    def acquire_from_a_full_pool(self) -> None:
        with pytest.raises(EngineError, match="no sequence is free"):
            self.pool.acquire("one too many")

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        sequence = self.pick(data)
        del self.held[sequence.id]
        self.pool.release(sequence)
        self.released.append(sequence)

    @precondition(lambda self: self.released)
    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        self.pool.release(data.draw(st.sampled_from(self.released)))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), to=st.integers(-1, SIZE))
    def move(self, data: st.DataObject, to: int) -> None:
        sequence = self.pick(data)
        if to in self.held or not 0 <= to < SIZE:
            with pytest.raises(EngineError, match="cannot move"):
                self.pool.move(sequence, to)
            return
        del self.held[sequence.id]
        self.pool.move(sequence, to)
        self.held[to] = sequence

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def swap(self, data: st.DataObject) -> None:
        a, b = self.pick(data), self.pick(data)
        before = (a.id, b.id)
        self.pool.swap(a, b)
        assert (b.id, a.id) == before
        self.held[a.id], self.held[b.id] = a, b

    @precondition(lambda self: self.released and self.held)
    @rule(data=st.data())
    def use_after_release(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.released))
        with pytest.raises(EngineError, match="cannot swap"):
            self.pool.swap(old, self.pick(data))
        with pytest.raises(EngineError, match="cannot move"):
            self.pool.move(old, next((i for i in range(SIZE) if i not in self.held), 0))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 9), max_size=3))
    def fill(self, data: st.DataObject, tokens: list[int]) -> None:
        self.pick(data).tokens.extend(tokens)

    @invariant()
    def agrees_with_the_model(self) -> None:
        self.pool.check_integrity(lambda i: len(self.held[i].tokens) if i in self.held else 0)
        assert self.pool.free == SIZE - len(self.held)
        assert {s.id for s in self.pool.held} == set(self.held)
        for i in range(SIZE):
            assert self.pool.holder(i) is self.held.get(i)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_released_sequence_is_empty_and_has_no_owner() -> None:
    pool = ContextPool(1)
    sequence = pool.acquire("call")
    sequence.tokens.append(1)
    pool.release(sequence)
    assert (sequence.owner, sequence.tokens) == (None, [])


def test_late_second_release_does_not_take_the_id_from_its_next_holder() -> None:
    pool = ContextPool(1)
    old = pool.acquire("old")
    pool.release(old)
    new = pool.acquire("new")
    pool.release(old)
    assert pool.holder(0) is new
    assert pool.free == 0


@pytest.mark.parametrize("real", [0, 3])
def test_integrity_check_names_a_sequence_that_does_not_hold_what_the_pool_says(real: int) -> None:
    pool = ContextPool(2)
    pool.acquire("call").tokens += [1, 2]
    pool.check_integrity([2, 0].__getitem__)
    with pytest.raises(EngineError, match=rf"sequence 0 holds {real} tokens where the pool says 2"):
        pool.check_integrity([real, 0].__getitem__)


def test_integrity_check_finds_tokens_in_a_free_sequence() -> None:
    with pytest.raises(EngineError, match="sequence 1 holds 4 tokens where the pool says 0"):
        ContextPool(2).check_integrity([0, 4].__getitem__)


def test_integrity_check_finds_a_sequence_that_forgot_its_id_or_owner() -> None:
    for change in ({"id": 1}, {"owner": None}):
        pool = ContextPool(2)
        sequence = pool.acquire("call")
        for name, value in change.items():
            setattr(sequence, name, value)
        with pytest.raises(EngineError, match="do not know"):
            pool.check_integrity(lambda _: 0)


def test_repr_counts_sequences_and_tokens() -> None:
    pool = ContextPool(3)
    pool.acquire("call").tokens += [1, 2]
    assert repr(pool) == "<ContextPool [sequences: 1 held, 2 free | tokens: 2]>"
