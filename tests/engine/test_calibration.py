"""calibrate: a cost model that is right before the first call, on any machine, in bounded time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from voice_llm.backend.base import BatchEntry
from voice_llm.engine import CostModel, DecodeShape
from voice_llm.engine.calibration import calibrate
from voice_llm.errors import BackendError
from voice_llm.testing import FakeBackend, FakeState, VirtualClock

pytestmark = pytest.mark.unit


def calibrated(**options: float) -> tuple[CostModel, FakeBackend, VirtualClock]:
    clock = VirtualClock()
    backend = FakeBackend(clock=clock, **options)  # type: ignore[arg-type]
    cost = CostModel()
    calibrate(backend, cost, clock)
    return cost, backend, clock


@pytest.mark.parametrize(
    ("micro_batch_ms", "token_ms"),
    [(4.0, 4.0), (20.0, 2.0), (0.2, 0.02), (0.01, 0.001), (40.0, 40.0), (200.0, 100.0)],
    ids=["cpu", "weights", "gpu", "fast-gpu", "slow", "very-slow"],
)
def test_predictions_are_near_the_truth_on_fast_and_slow_machines(micro_batch_ms: float, token_ms: float) -> None:
    cost, _, _ = calibrated(sequences=8, micro_batch_ms=micro_batch_ms, token_ms=token_ms)
    one_row = micro_batch_ms + token_ms
    assert cost.decode_ms(DecodeShape(((1, 50),))) == pytest.approx(one_row, rel=0.25)
    assert cost.prefill_ms(64, 0) == pytest.approx(micro_batch_ms + 64 * token_ms, rel=0.25)


def test_micro_batches_and_rows_are_told_apart() -> None:
    cost, _, _ = calibrated(sequences=8, micro_batch_ms=20, token_ms=1)
    apart, together = DecodeShape(((1, 20),) * 4), DecodeShape(((4, 20),))
    assert cost.decode_ms(apart) - cost.decode_ms(together) == pytest.approx(60, rel=0.2)


@pytest.mark.parametrize("sequences", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("max_batch_tokens", [1, 5, 512])
@pytest.mark.parametrize("context_per_call", [64, 2048])
def test_any_size_of_backend_is_left_empty(sequences: int, max_batch_tokens: int, context_per_call: int) -> None:
    _, backend, _ = calibrated(
        sequences=sequences, max_batch_tokens=max_batch_tokens, context_per_call=context_per_call
    )
    assert [backend.seq_length(i) for i in range(sequences)] == [0] * sequences
    assert backend.counters.batches > 2


def test_a_slow_machine_stops_measuring_when_the_time_is_up() -> None:
    _, backend, clock = calibrated(sequences=8, micro_batch_ms=1000, token_ms=1000)
    # The first step, one single-token step and one short prefill are all that is left of the plan.
    assert backend.counters.batches == 3
    assert clock() < 40


class OddAtSix(FakeBackend):
    """Six rows take longer than eight."""

    def decode(self, entries: Sequence[BatchEntry]) -> int:
        if len(entries) == 6 and self._clock is not None:
            self._clock.advance(0.008)
        return super().decode(entries)


def test_each_number_of_rows_is_measured_once_before_any_is_twice() -> None:
    clock = VirtualClock()
    backend = FakeBackend(clock=clock, sequences=20, split_kv=False, micro_batch_ms=1, token_ms=1)
    calibrate(backend, CostModel(), clock)
    rows = [len(batch) for batch in backend.batches[1:] if all(tokens == 1 for _, tokens in batch)]
    assert rows[:10] == [1, 2, 3, 4, 6, 8, 12, 16, 20, 1]


@pytest.mark.parametrize(("micro_batch_ms", "token_ms"), [(1, 0.1), (5, 3), (8, 4), (20, 10)])
@pytest.mark.parametrize("sequences", [8, 64])
def test_no_machine_is_kept_waiting_for_longer_than_the_budget(
    micro_batch_ms: float, token_ms: float, sequences: int
) -> None:
    _, _, clock = calibrated(sequences=sequences, micro_batch_ms=micro_batch_ms, token_ms=token_ms)
    first_ms = micro_batch_ms + 16 * token_ms  # allocates, whatever it takes
    assert clock() <= 2.0 + first_ms / 1e3 + 0.05


def test_odd_size_is_known_before_the_first_call() -> None:
    clock = VirtualClock()
    cost = CostModel()
    calibrate(OddAtSix(clock=clock, sequences=8, micro_batch_ms=4, token_ms=2), cost, clock)
    assert cost.decode_ms(DecodeShape(((6, 0),))) == pytest.approx(24, rel=0.15)
    assert cost.decode_ms(DecodeShape(((8, 0),))) == pytest.approx(20, rel=0.15)
    assert cost.best_rows(6, 0) == 4


def test_sequences_are_emptied_even_where_a_measurement_fails() -> None:
    clock = VirtualClock()
    backend = FakeBackend(clock=clock)
    backend.fail_next(BackendError("no compute buffer"))
    with pytest.raises(BackendError, match="no compute buffer"):
        calibrate(backend, CostModel(), clock)
    assert [backend.seq_length(i) for i in range(4)] == [0, 0, 0, 0]


def test_time_of_a_state_copy_is_learned() -> None:
    class SlowCopies(FakeBackend):
        def seq_save(self, sequence_id: int) -> FakeState:
            clock.advance(0.001 * self.seq_length(sequence_id))
            return super().seq_save(sequence_id)

    clock = VirtualClock()
    cost = CostModel()
    calibrate(SlowCopies(clock=clock), cost, clock)
    assert cost.copy_ms_per_token == pytest.approx(1.0)
