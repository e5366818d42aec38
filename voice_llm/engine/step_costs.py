"""StepCosts: what an engine's steps take on some machine, as a value that can be kept and used elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from ..errors import ConfigError
from .cost import CostModel
from .counters import BatcherCounters
from .decode_cost import DecodeShape

__all__ = ["StepCosts"]

_PER_1K: Final = 1e-3
_MOST_ROWS: Final = 64
_LISTS: Final = ("decode_ms", "prefill_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCosts:
    """Times in milliseconds, as a ``CostModel`` has learned them.

    Attributes:
        decode_ms: A micro-batch of one single token, of two, of three, ..., without what its context costs.
        row_ms: What each further row adds.
        context_ms: What 1,000 rows x tokens of context add.
        prefill_ms: A chunk of a prompt: what is constant, a token, and 1,000 tokens x context.
        copy_ms_per_token: Saving and restoring a sequence, a token.
        sample_ms: Drawing a token and making events of it.
        step_ms: Whatever else a step takes: planning, filling batches, bookkeeping.
        spread: How far single steps lie off these, as a share: mean of |predicted - real| / real.
    """

    decode_ms: tuple[float, ...]
    row_ms: float
    context_ms: float
    prefill_ms: tuple[float, float, float]
    copy_ms_per_token: float = 0.0
    sample_ms: float = 0.0
    step_ms: float = 0.0
    spread: float = 0.0

    @classmethod
    def of(cls, cost: CostModel, counters: BatcherCounters | None = None) -> Self:
        """Read a cost model, and from the counters what it leaves out."""
        counted = counters or BatcherCounters()
        steps = counted.decode_steps + counted.prefill_steps
        return cls(
            decode_ms=tuple(cost.decode.predict(((rows, 0),)) for rows in range(1, _MOST_ROWS + 1)),
            row_ms=cost.decode.weights[1],
            context_ms=cost.decode.weights[2],
            prefill_ms=(cost.prefill.weights[0], cost.prefill.weights[1], cost.prefill.weights[2]),
            copy_ms_per_token=cost.copy_ms_per_token,
            sample_ms=counted.sample_ms / counted.decode_rows if counted.decode_rows else 0.0,
            step_ms=counted.planning_ms / steps if steps else 0.0,
            spread=cost.decode_error,
        )

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            ConfigError: It is something else.
        """
        names = {field.name for field in fields(cls)}
        try:
            if not isinstance(data, dict):
                raise TypeError(f"a mapping is needed, not {type(data).__name__}")
            for name in _LISTS:
                if not isinstance(data.get(name), list):
                    raise TypeError(f"{name} must be a list")
            if not set(data) <= names:
                raise KeyError(min(set(data) - names))
            values = {name: tuple(map(float, v)) if name in _LISTS else float(v) for name, v in data.items()}
            costs = cls(**values)  # type: ignore[arg-type]
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigError(f"these are no step costs: {error}") from None
        flat = [*costs.decode_ms, *costs.prefill_ms, *(v for v in values.values() if isinstance(v, float))]
        if not costs.decode_ms or len(costs.prefill_ms) != 3 or not all(0 <= cost < math.inf for cost in flat):
            raise ConfigError("these are no step costs: there are too few of them, or some are negative")
        return costs

    def to_json(self) -> dict[str, Any]:
        """Return it as ``json.dumps`` takes it, rounded to nanoseconds."""
        return {
            name: [round(v, 6) for v in value] if isinstance(value, tuple) else round(value, 6)
            for name, value in asdict(self).items()
        }

    def decode_step_ms(self, shape: DecodeShape) -> float:
        """Return the time of a step of single tokens."""
        return sum(self._rows_ms(rows) + self.context_ms * _PER_1K * rows * context for rows, context in shape.runs)

    def prefill_chunk_ms(self, tokens: int, context: int) -> float:
        """Return the time of ``tokens`` of a prompt after ``context`` tokens of the same sequence."""
        constant, token, per_context = self.prefill_ms
        return constant + tokens * (token + per_context * _PER_1K * (context + tokens / 2))

    def scaled(self, share: float) -> Self:
        """Return the costs of a machine that takes ``share`` of the time."""
        values = {name: _times(value, share) for name, value in asdict(self).items() if name != "spread"}
        return type(self)(**values, spread=self.spread)

    def _rows_ms(self, rows: int) -> float:
        known = self.decode_ms
        return known[rows - 1] if rows <= len(known) else known[-1] + self.row_ms * (rows - len(known))


def _times(value: float | Sequence[float], share: float) -> Any:
    return value * share if isinstance(value, float) else tuple(v * share for v in value)
