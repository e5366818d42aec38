"""CallTable: open, park, close, and what of a call's KV is used again."""

from __future__ import annotations

import pytest

from voice_llm.backend import BatchEntry, SavedState
from voice_llm.config.engine import EngineConfig
from voice_llm.engine import BatcherCounters, CostModel, IsolationKey, LiveCall, PrefixStore, Request, RequestKind
from voice_llm.engine.calls import CallTable
from voice_llm.errors import AtCapacityError, BackendError, EngineError, WrongStateError
from voice_llm.testing import FakeBackend, FakeState

pytestmark = pytest.mark.unit

ACME = IsolationKey("fake", "test", "acme")
RIVAL = IsolationKey("fake", "test", "rival")
PROMPT = list(range(1, 41))


class Forgetful(FakeBackend):
    """A backend whose saved states stop fitting."""

    refuses_states = False

    def seq_restore(self, sequence_id: int, state: SavedState) -> None:
        if self.refuses_states:
            self.seq_drop(sequence_id)
            raise BackendError("the state does not fit")
        super().seq_restore(sequence_id, state)


class Table:
    """A call table over a fake backend."""

    def __init__(
        self, *, sequences: int = 2, max_calls: int = 4, parked_bytes: int = 2**20, sliding_window: int = 0
    ) -> None:
        self.backend = Forgetful(sequences=sequences, sliding_window=sliding_window)
        self.prefixes = PrefixStore(2**20)
        self.counters = BatcherCounters()
        config = EngineConfig(parked_bytes=parked_bytes)
        self.calls = CallTable(self.backend, config, self.prefixes, self.counters, CostModel(), max_calls=max_calls)
        self._now_s = 0.0

    def open(self, name: str, key: IsolationKey = ACME, *, one_shot: bool = False) -> LiveCall:
        self._now_s += 1
        return self.calls.open(name, key, self._now_s, one_shot=one_shot)

    def close(self, call: LiveCall) -> None:
        self._now_s += 1
        self.calls.close(call, self._now_s)

    def cached(self, call: LiveCall, prompt: list[int], *, needs_logits: bool = True) -> int:
        return self.calls.reuse(call, prompt, needs_logits=needs_logits)

    def prefill(self, call: LiveCall, prompt: list[int]) -> int:
        """Give the call a sequence and bring the whole prompt into it; returns what was cached."""
        assert self.calls.provide_sequence(call)
        cached = self.cached(call, prompt, needs_logits=False)
        sequence = call.sequence
        assert sequence is not None
        if cached < len(prompt):
            self.backend.decode([BatchEntry(sequence.id, cached, prompt[cached:], False)])
            sequence.tokens += prompt[cached:]
        self.check()
        return cached

    def check(self) -> None:
        self.calls.check_integrity([])


def held(call: LiveCall) -> list[int]:
    assert call.sequence is not None
    return call.sequence.tokens


def test_one_call_too_many_is_refused_and_says_what_to_do() -> None:
    table = Table(max_calls=2)
    table.open("a")
    table.open("b")
    with pytest.raises(AtCapacityError, match="all 2 calls are taken") as refused:
        table.open("c")
    assert refused.value.retry_after_s > 0
    assert len(table.calls) == 2


def test_one_shots_take_no_calls_place_and_are_bounded_themselves() -> None:
    table = Table(max_calls=2)
    shots = [table.open(f"shot-{i}", one_shot=True) for i in range(2)]
    calls = [table.open(f"call-{i}") for i in range(2)]
    assert table.calls.open_calls == 2
    with pytest.raises(AtCapacityError, match="2 one-shot"):
        table.open("shot-2", one_shot=True)
    with pytest.raises(AtCapacityError, match="all 2 calls"):
        table.open("call-2")
    for call in (shots[0], shots[0], calls[0]):
        table.close(call)
    assert table.calls.open_calls == 1
    table.open("shot-2", one_shot=True)
    table.open("call-2")
    assert table.calls.open_calls == 2


def test_a_one_shot_parks_the_call_that_was_quiet_longest_and_leaves_no_prefix_behind() -> None:
    table = Table()
    quiet, recent = table.open("quiet"), table.open("recent")
    table.prefill(quiet, PROMPT)
    table.prefill(recent, PROMPT)
    shot = table.open("shot", one_shot=True)
    table.prefill(shot, PROMPT)
    table.calls.offer_prefix(shot)
    assert quiet.sequence is None
    assert quiet.parked is not None
    assert recent.sequence is not None
    assert len(table.prefixes) == 0


def test_call_ids_are_unique_within_a_tenant_only() -> None:
    table = Table()
    first = table.open("a")
    table.open("a", RIVAL)
    with pytest.raises(WrongStateError, match="already open"):
        table.open("a")
    table.close(first)
    table.open("a")


def test_late_second_close_does_not_end_a_newer_call_of_the_same_name() -> None:
    table = Table()
    old = table.open("a")
    table.close(old)
    new = table.open("a")
    table.close(old)
    assert list(table.calls) == [new]


def test_close_empties_the_sequence_and_frees_it() -> None:
    table = Table()
    call = table.open("a")
    table.prefill(call, PROMPT)
    table.close(call)
    assert table.calls.pool.free == 2
    assert table.backend.seq_length(0) == 0
    assert call.closed
    table.check()


def test_open_calls_hold_no_sequence_before_their_first_request() -> None:
    table = Table(sequences=1)
    table.open("a")
    assert table.calls.pool.free == 1


def test_longest_quiet_call_is_parked_and_comes_back_with_its_cache() -> None:
    table = Table(sequences=2)
    a, b, c = table.open("a"), table.open("b"), table.open("c")
    table.prefill(a, PROMPT)
    table.prefill(b, [9, 9, 9])
    a.last_active_s, b.last_active_s = 10.0, 20.0
    table.prefill(c, [8, 8])
    assert (a.sequence, table.counters.parked) == (None, 1)
    assert b.sequence is not None
    assert table.calls.parked_bytes == 1024 * len(PROMPT)
    c.last_active_s = 30.0
    assert table.calls.provide_sequence(a)
    assert table.cached(a, [*PROMPT, 77, 78]) == len(PROMPT)
    assert b.sequence is None
    assert a.parked is None
    table.check()


def test_call_with_a_request_is_never_parked() -> None:
    table = Table(sequences=1)
    a, b = table.open("a"), table.open("b")
    table.prefill(a, PROMPT)
    a.request = Request(a, RequestKind.PREFILL, PROMPT, 0.0)
    assert not table.calls.provide_sequence(b)
    assert b.sequence is None
    assert held(a) == PROMPT


def test_call_that_does_not_fit_into_host_memory_gives_up_its_cache_but_not_its_place() -> None:
    table = Table(sequences=1, parked_bytes=1024 * 30)
    a, b = table.open("a"), table.open("b")
    table.prefill(a, PROMPT)
    table.prefill(b, [9] * 5)
    assert (a.parked, table.counters.parked) == (None, 0)
    assert table.prefill(a, PROMPT) == 0
    assert table.calls.parked_bytes == 1024 * 5


def test_empty_sequence_is_not_worth_parking() -> None:
    table = Table(sequences=1)
    a, b = table.open("a"), table.open("b")
    table.calls.provide_sequence(a)
    table.calls.provide_sequence(b)
    assert (a.parked, table.counters.parked) == (None, 0)
    table.check()


def test_parked_state_goes_with_its_call() -> None:
    table = Table(sequences=1)
    a, b = table.open("a"), table.open("b")
    table.prefill(a, PROMPT)
    table.prefill(b, [9])
    table.close(a)
    assert table.calls.parked_bytes == 0
    table.check()


def test_parked_state_that_no_longer_fits_is_computed_again() -> None:
    table = Table(sequences=1)
    a, b = table.open("a"), table.open("b")
    table.prefill(a, PROMPT)
    table.prefill(b, [9])
    table.backend.refuses_states = True
    assert table.prefill(a, PROMPT) == 0
    assert held(a) == PROMPT


@pytest.mark.parametrize("needs_logits", [True, False])
def test_only_the_shared_prefix_is_kept(needs_logits: bool) -> None:
    table = Table()
    call = table.open("a")
    table.prefill(call, PROMPT)
    assert table.cached(call, [*PROMPT[:10], 99, 98], needs_logits=needs_logits) == 10
    assert held(call) == PROMPT[:10]
    table.check()


def test_turn_always_leaves_two_tokens_to_decode_and_a_prefill_none() -> None:
    table = Table()
    call = table.open("a")
    table.prefill(call, PROMPT)
    assert table.cached(call, PROMPT, needs_logits=False) == len(PROMPT)
    assert table.cached(call, PROMPT, needs_logits=True) == len(PROMPT) - 2
    table.check()
    assert table.cached(call, PROMPT[:1], needs_logits=True) == 0


def test_prefill_of_a_part_of_what_is_held_keeps_the_rest_for_the_turn() -> None:
    table = Table()
    call = table.open("a")
    table.prefill(call, PROMPT)
    assert table.prefill(call, PROMPT[:10]) == 10
    assert table.cached(call, PROMPT) == len(PROMPT) - 2


def test_equal_opening_of_the_same_tenant_is_restored() -> None:
    table = Table()
    a, b = table.open("a"), table.open("b")
    table.prefill(a, PROMPT)
    table.calls.offer_prefix(a)
    assert table.prefill(b, [*PROMPT[:30], 99]) == 30
    assert table.counters.restored_tokens == 30
    table.check()


def test_opening_of_another_tenant_is_not_restored() -> None:
    table = Table()
    a, b = table.open("a"), table.open("b", RIVAL)
    table.prefill(a, PROMPT)
    table.calls.offer_prefix(a)
    assert table.prefill(b, PROMPT) == 0
    assert table.counters.restored_tokens == 0


def test_profiles_own_prompt_is_restored_for_every_tenant() -> None:
    table = Table()
    a, b = table.open("a"), table.open("b", RIVAL)
    table.prefill(a, PROMPT[:20])
    table.calls.save_prefix(a, ACME.of_profile)
    assert table.prefill(b, PROMPT) == 20


def test_only_a_calls_first_prompt_is_offered() -> None:
    table = Table()
    call = table.open("a")
    table.prefill(call, PROMPT)
    table.calls.offer_prefix(call)
    table.prefill(call, [50, 51, 52])
    table.calls.offer_prefix(call)
    assert len(table.prefixes) == 1


def test_restore_that_gains_a_few_tokens_only_is_not_made() -> None:
    table = Table()
    a, b = table.open("a"), table.open("b")
    table.prefill(b, PROMPT[:35])
    table.prefill(a, PROMPT)
    table.calls.offer_prefix(a)
    assert table.cached(b, PROMPT) == 35
    assert table.counters.restored_tokens == 0


def test_saved_prefix_that_no_longer_fits_is_computed_instead() -> None:
    table = Table()
    a, b = table.open("a"), table.open("b")
    table.prefill(a, PROMPT)
    table.calls.offer_prefix(a)
    table.backend.refuses_states = True
    assert table.prefill(b, PROMPT) == 0
    assert held(b) == PROMPT


def test_trim_that_lost_its_window_starts_from_nothing() -> None:
    table = Table(sliding_window=8)
    call = table.open("a")
    table.prefill(call, PROMPT)
    assert table.cached(call, [*PROMPT[:20], 99]) == 0
    assert held(call) == []
    table.check()


def test_forgotten_call_starts_from_nothing_and_keeps_its_sequence() -> None:
    table = Table()
    call = table.open("a")
    table.prefill(call, PROMPT)
    table.calls.forget(call)
    assert held(call) == []
    table.check()
    assert table.cached(call, PROMPT) == 0


def test_integrity_check_finds_a_sequence_that_no_call_knows() -> None:
    table = Table()
    table.calls.pool.acquire("nobody")
    with pytest.raises(EngineError, match="1 sequences are held, but calls know of 0"):
        table.check()


def test_integrity_check_finds_a_request_that_is_lost() -> None:
    table = Table()
    call = table.open("a")
    call.request = Request(call, RequestKind.PREFILL, PROMPT, 0.0)
    with pytest.raises(EngineError, match="0 requests run, but calls know of 1"):
        table.check()
    table.calls.check_integrity([call.request])


def test_integrity_check_finds_a_call_that_is_both_parked_and_held() -> None:
    table = Table()
    call = table.open("a")
    table.prefill(call, PROMPT)
    call.parked = (FakeState((1,)), [1])
    with pytest.raises(EngineError, match="both parked and in the cache"):
        table.check()
