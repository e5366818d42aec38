"""calibrate: a cost model that is right before the first call, on any machine, in bounded time."""

from __future__ import annotations

import pytest

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
    assert cost.decode_ms(DecodeShape(1, 1, 50)) == pytest.approx(one_row, rel=0.25)
    assert cost.prefill_ms(64, 0) == pytest.approx(micro_batch_ms + 64 * token_ms, rel=0.25)


def test_micro_batches_and_rows_are_told_apart() -> None:
    cost, _, _ = calibrated(sequences=8, micro_batch_ms=20, token_ms=1)
    apart, together = DecodeShape(4, 4, 80), DecodeShape(1, 4, 80)
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
