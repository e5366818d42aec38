"""Step costs are kept, read back and used as they were learned."""

from __future__ import annotations

import json
import math

import pytest

from voice_llm.engine import DecodeShape
from voice_llm.engine.step_costs import StepCosts
from voice_llm.errors import ConfigError

pytestmark = pytest.mark.unit

COSTS = StepCosts(
    decode_ms=(10.0, 14.0),
    row_ms=4.0,
    context_ms=2.0,
    prefill_ms=(3.0, 0.5, 1.0),
    copy_ms_per_token=0.01,
    sample_ms=0.2,
    step_ms=0.3,
    spread=0.1,
)


def test_what_is_written_is_read_back() -> None:
    assert StepCosts.from_json(json.loads(json.dumps(COSTS.to_json()))) == COSTS


def test_step_costs_its_rows_and_their_context() -> None:
    one = DecodeShape.of([(0, 1000)], split_kv=True)
    three = DecodeShape.of([(0, 1000), (1, 1000), (2, 1000)], split_kv=False)
    assert COSTS.decode_step_ms(one) == pytest.approx(10.0 + 2.0, rel=0.01)
    assert COSTS.decode_step_ms(three) > COSTS.decode_step_ms(one) + 4.0


def test_chunk_of_a_prompt_costs_more_the_more_stands_before_it() -> None:
    assert COSTS.prefill_chunk_ms(100, 0) == pytest.approx(3 + 50 + 0.1 * 50)
    assert COSTS.prefill_chunk_ms(100, 1000) == pytest.approx(COSTS.prefill_chunk_ms(100, 0) + 100)


def test_machine_that_is_twice_as_fast_takes_half_the_time_and_errs_as_much() -> None:
    fast = COSTS.scaled(0.5)
    assert fast.decode_ms == (5.0, 7.0)
    assert fast.prefill_chunk_ms(100, 500) == pytest.approx(COSTS.prefill_chunk_ms(100, 500) / 2)
    assert fast.spread == COSTS.spread


@pytest.mark.parametrize(
    "change",
    [
        {"decode_ms": []},
        {"prefill_ms": [1.0]},
        {"row_ms": -1.0},
        {"sample_ms": math.nan},
        {"step_ms": math.inf},
        {"row_ms": "fast"},
        {"unknown": 1.0},
        {"decode_ms": 5.0},
        {"row_ms": [1.0]},
    ],
)
def test_what_are_no_costs_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="no step costs"):
        StepCosts.from_json(COSTS.to_json() | change)
    with pytest.raises(ConfigError):
        StepCosts.from_json(["a", "list"])
