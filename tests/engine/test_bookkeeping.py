"""StepBook and BatcherCounters: where the time of steps went."""

from __future__ import annotations

import copy
from dataclasses import fields

import pytest

from tests.engine.driver import Driver, chat
from voice_llm.backend.base import BatchEntry, Sampler, SavedState
from voice_llm.engine import IsolationKey, LiveCall, Request, RequestKind
from voice_llm.engine.bookkeeping import StepBook
from voice_llm.engine.cost import CostModel
from voice_llm.engine.counters import BatcherCounters, PromptKind, Work
from voice_llm.observer import Observer
from voice_llm.testing import FakeBackend, VirtualClock

pytestmark = pytest.mark.unit

SYSTEM = "You are a patient voice on the phone. " * 4
OPENING = chat("Hello?", system=SYSTEM)
LATER = chat("Hello?", "You said Hello?. That makes 1.", "Merhaba, poliçem ne zaman bitiyor?", system=SYSTEM)


class TestBook:
    @staticmethod
    def book() -> StepBook:
        return StepBook(CostModel(), Observer(), split_kv=True)

    @staticmethod
    def request(kind: RequestKind, *, seeded: bool) -> Request:
        return Request(LiveCall("a", IsolationKey("fake", "test", "acme"), seeded=seeded), kind, [1], 0.0)

    @pytest.mark.parametrize(
        ("kind", "seeded", "prompt"),
        [
            (RequestKind.TURN, False, PromptKind.OPENING),
            (RequestKind.PREFILL, False, PromptKind.OPENING),
            (RequestKind.TURN, True, PromptKind.TURN),
            (RequestKind.PREFILL, True, PromptKind.HINT),
        ],
    )
    def test_prompt_is_an_opening_until_the_call_has_had_one(
        self, kind: RequestKind, seeded: bool, prompt: PromptKind
    ) -> None:
        book = self.book()
        book.prefilled([BatchEntry(0, 0, [1] * 20, False)], [self.request(kind, seeded=seeded)], 30.0)
        assert {k: w for k, w in book.counters.prompts.items() if w.steps} == {prompt: Work(1, 20, 30.0)}

    def test_step_of_several_prompts_is_shared_out_by_tokens(self) -> None:
        book = self.book()
        requests = [self.request(RequestKind.TURN, seeded=s) for s in (False, True, True)]
        book.prefilled([BatchEntry(i, 0, [1] * n, False) for i, n in enumerate((30, 8, 2))], requests, 80.0)
        counters = book.counters
        assert counters.prompts[PromptKind.OPENING] == Work(1, 30, 60.0)
        assert counters.prompts[PromptKind.TURN] == Work(1, 10, 20.0)
        assert (counters.prefill_steps, counters.prefill_tokens, counters.prefill_ms) == (1, 40, 80.0)

    def test_decode_is_counted_by_rows(self) -> None:
        book = self.book()
        for rows, ms in ((2, 10.0), (3, 12.0), (2, 11.0)):
            book.decoded([BatchEntry(i, 5, (1,), True) for i in range(rows)], 1, ms)
        assert book.counters.decode_by_rows == {2: Work(2, 4, 21.0), 3: Work(1, 3, 12.0)}

    def test_planning_is_what_nothing_else_accounts_for(self) -> None:
        book = self.book()
        entries = [BatchEntry(0, 5, (1,), True)]
        book.decoded(entries, 1, 10.0)
        book.counters.sample_ms += 1.0
        book.step_over(entries, 13.5, decoded=True, copies_ms=2.0)
        assert book.counters.planning_ms == pytest.approx(0.5)

    def test_step_without_anything_to_decode_counts_its_copies_and_tells_nobody(self) -> None:
        class Counts(Observer):
            steps = 0

            def step(self, kind: str, rows: int, took_s: float) -> None:
                self.steps += 1

        observer = Counts()
        book = StepBook(CostModel(), observer, split_kv=True)
        book.step_over([], 3.0, decoded=False, copies_ms=3.0)
        assert (book.counters.copies_ms, book.counters.planning_ms, observer.steps) == (3.0, 0.0, 0)
        assert book.counters.longest_step_ms == 0


def test_snapshot_does_not_change_with_later_steps() -> None:
    counters = BatcherCounters()
    counters.decode_by_rows[2] = Work(1, 2, 3.0)
    snapshot = copy.copy(counters)
    assert snapshot == counters
    counters.decode_by_rows[2].add(2, 3.0)
    counters.decode_by_rows[4] = Work(1, 4, 5.0)
    counters.prompts[PromptKind.HINT].add(1, 1.0)
    counters.parked += 1
    assert snapshot.decode_by_rows == {2: Work(1, 2, 3.0)}
    assert snapshot.prompts[PromptKind.HINT] == Work()
    assert snapshot.parked == 0
    assert {f.name for f in fields(snapshot)} == {f.name for f in fields(counters)}


class SlowEverything(FakeBackend):
    """Sampling takes 1 ms a row, a restore 5 ms."""

    def sample(self, entry_index: int, sampler: Sampler) -> int:
        assert isinstance(self._clock, VirtualClock)
        self._clock.advance(0.001)
        return super().sample(entry_index, sampler)

    def seq_restore(self, sequence_id: int, state: SavedState) -> None:
        assert isinstance(self._clock, VirtualClock)
        self._clock.advance(0.005)
        super().seq_restore(sequence_id, state)


def test_all_time_of_a_batcher_is_accounted_for() -> None:
    driver = Driver(backend_type=SlowEverything)
    first, second = driver.open(), driver.open()
    driver.say(first, OPENING)
    driver.hint(first, LATER[:-40])
    driver.run()
    driver.turn(second, OPENING)  # restored
    driver.turn(first, LATER)
    driver.run()
    counters = driver.batcher.counters
    assert all(work.ms > 0 for work in counters.prompts.values())
    assert sum(work.ms for work in counters.prompts.values()) == pytest.approx(counters.prefill_ms)
    assert sum(work.tokens for work in counters.prompts.values()) == counters.prefill_tokens
    assert sum(work.ms for work in counters.decode_by_rows.values()) == pytest.approx(counters.decode_ms)
    assert sum(rows * work.steps for rows, work in counters.decode_by_rows.items()) == counters.decode_rows
    assert set(counters.decode_by_rows) == {1, 2}
    assert counters.copies_ms == pytest.approx(5)
    assert counters.sample_ms == pytest.approx(driver.backend.counters.sampled_tokens)
    assert counters.planning_ms == pytest.approx(0, abs=1e-6)  # on virtual time, Python takes none
    assert counters.step_ms == pytest.approx(driver.clock() * 1e3)
