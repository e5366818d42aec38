"""voice_llm.backend.llama.trial: what a turn costs at the expected load, on a clock that only decoding moves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from voice_llm.backend.base import BatchEntry, SavedState
from voice_llm.backend.llama.trial import Load, Trial
from voice_llm.config.engine import EngineConfig
from voice_llm.testing import FakeBackend, VirtualClock

pytestmark = pytest.mark.unit

STEP_MS, ROW_MS, TOKEN_MS = 4.0, 2.0, 1.0
ROW_CELLS_MS = 1e-3
CELLS = 256


class PricedBackend(FakeBackend):
    """Costs what attention costs: of its own stream with split KV, of all calls' cells with unified KV."""

    def __init__(self, load: Load, *, split_kv: bool, slower: float = 1.0, copy_ms: float = 0.0) -> None:
        self.clock = VirtualClock()
        super().__init__(sequences=load.calls, context_per_call=load.trial_context, split_kv=split_kv)
        self._slower, self._copy_ms = slower, copy_ms
        self.most_held = self.copies = 0

    def decode(self, entries: Sequence[BatchEntry]) -> int:
        micro_batches = super().decode(entries)
        assert micro_batches == 1
        lengths = [self.seq_length(i) for i in range(self.info.sequences)]
        held = max(lengths[e.sequence_id] for e in entries) if self.info.split_kv else sum(lengths)
        self.most_held = max(self.most_held, sum(lengths))
        tokens = sum(len(e.tokens) for e in entries)
        cells = -(-held // CELLS) * CELLS
        ms = STEP_MS + tokens * (ROW_MS if tokens == len(entries) else TOKEN_MS) + ROW_CELLS_MS * tokens * cells
        self.clock.advance(ms * self._slower / 1e3)
        return micro_batches

    def seq_restore(self, sequence_id: int, state: SavedState) -> None:
        super().seq_restore(sequence_id, state)
        self.copies += 1
        self.clock.advance(self._copy_ms / 1e3)


def tried(backend: PricedBackend, load: Load) -> float:
    return Trial(backend, load, [1, 2, 3], clock=backend.clock).turn_ms()


def load_of(sequences: int, context_per_call: int = 8192) -> Load:
    return Load.of(EngineConfig(sequences=sequences, context_per_call=context_per_call))


def price(load: Load, *, split_kv: bool) -> float:
    """What a turn of 48 tokens and two chunks costs when all calls hold their context."""
    held = load.context_tokens * (1 if split_kv else load.calls)
    cells = -(-held // CELLS) * CELLS
    step_ms = STEP_MS + load.talkers * (ROW_MS + ROW_CELLS_MS * cells)
    chunk_ms = STEP_MS + load.chunk_tokens * (TOKEN_MS + ROW_CELLS_MS * cells)
    return 2 * chunk_ms + 48 / load.talkers * step_ms


def test_a_load_is_as_many_calls_as_there_are_sequences_of_which_a_quarter_talks() -> None:
    assert load_of(1) == Load(1, 1, 600, 64)
    assert load_of(8) == Load(8, 2, 600, 64)
    assert load_of(128) == Load(128, 32, 600, 64)


@pytest.mark.parametrize("context_per_call", [64, 100, 256, 600, 700])
def test_small_contexts_are_tried_within_their_size(context_per_call: int) -> None:
    load = load_of(4, context_per_call)
    assert 0 < load.chunk_tokens <= load.context_tokens
    assert load.trial_context <= context_per_call
    assert tried(PricedBackend(load, split_kv=True), load) > 0


@pytest.mark.parametrize("split_kv", [True, False])
@pytest.mark.parametrize("sequences", [1, 2, 8, 32, 128])
def test_a_fast_machine_is_measured_at_the_whole_load(sequences: int, split_kv: bool) -> None:
    load = load_of(sequences)
    backend = PricedBackend(load, split_kv=split_kv, slower=0.01)
    assert tried(backend, load) == pytest.approx(0.01 * price(load, split_kv=split_kv), rel=0.05)
    assert backend.most_held >= 0.9 * load.calls * load.context_tokens


@pytest.mark.parametrize("split_kv", [True, False])
@pytest.mark.parametrize("copy_ms", [0.0, 20.0])
def test_a_slow_machine_is_filled_in_part_and_extrapolated(split_kv: bool, copy_ms: float) -> None:
    load = load_of(32)
    backend = PricedBackend(load, split_kv=split_kv, slower=1.5, copy_ms=copy_ms)
    assert tried(backend, load) == pytest.approx(1.5 * price(load, split_kv=split_kv), rel=0.12)
    assert backend.most_held < 0.9 * load.calls * load.context_tokens


def test_even_the_slowest_machine_is_tried_in_a_bounded_number_of_steps() -> None:
    load = load_of(256)
    backend = PricedBackend(load, split_kv=False, slower=100.0, copy_ms=1000.0)
    assert tried(backend, load) > 0
    assert len(backend.batches) <= 5
    assert backend.copies <= 2 * load.talkers  # no call beside those that talk


def test_many_calls_make_unified_kv_dearer_than_split_and_a_single_one_does_not() -> None:
    def costs(sequences: int) -> tuple[float, float]:
        load = load_of(sequences)
        split, unified = (tried(PricedBackend(load, split_kv=split_kv), load) for split_kv in (True, False))
        return split, unified

    split_ms, unified_ms = costs(8)
    assert unified_ms > 1.5 * split_ms
    split_ms, unified_ms = costs(1)
    assert unified_ms == pytest.approx(split_ms)
