"""CostModel: how long a step will take, learned from the steps before."""

from __future__ import annotations

from typing import Final

from .decode_cost import DecodeFit, DecodeShape
from .fits import LinearFit

__all__ = ["CostModel", "DecodeShape"]

_PER_1K: Final = 1e-3
# Sizes whose time a row differs by less than this are equally good.
_EQUALLY_GOOD: Final = 1.02


class CostModel:
    """Predicts step times in milliseconds and learns from each step.

    Decode: see ``DecodeFit``. Prefill: a constant, tokens and tokens x context. The first guesses are those of a small
    model on a few CPU cores; calibration at warm-up replaces them.
    """

    def __init__(self) -> None:
        self.decode = DecodeFit([4.0, 4.0, 1.0])
        self.prefill = LinearFit([4.0, 4.0, 0.5])
        self.copy_ms_per_token = 0.004
        """Time to move a sequence to another id (save and restore), in milliseconds a token."""

    def __repr__(self) -> str:
        decode = ", ".join(f"{w:.2f}" for w in self.decode.weights)
        prefill = ", ".join(f"{w:.2f}" for w in self.prefill.weights)
        errors = f"error: {self.decode_error:.0%}, {self.prefill_error:.0%}"
        return f"<CostModel [decode ms: {decode} | prefill ms: {prefill} | {errors}]>"

    @property
    def micro_batch_ms(self) -> float:
        """What a micro-batch costs whatever is in it: a step of scattered rows pays that for each further run."""
        return self.decode.weights[0]

    @property
    def decode_error(self) -> float:
        """Moving mean of |predicted - real| / real over single-token steps."""
        return self.decode.error

    @property
    def prefill_error(self) -> float:
        """Moving mean of |predicted - real| / real over prefills."""
        return self.prefill.error

    def decode_ms(self, shape: DecodeShape) -> float:
        """Predict a single-token step."""
        return self.decode.predict(shape.runs)

    def best_rows(self, most: int, context: int) -> int:
        """Return how many rows, in one run, take the least time each; of those nearly equally good the most.

        Args:
            most: At least 1.
            context: The run's context, in tokens. What a row takes for it is alike at all sizes: the longer it is, the
                less an odd size matters.
        """
        ms_a_row = [self.decode.predict(((rows, context),)) / rows for rows in range(1, most + 1)]
        bound = min(ms_a_row) * _EQUALLY_GOOD
        return max(rows for rows, ms in enumerate(ms_a_row, 1) if ms <= bound)

    def prefill_ms(self, tokens: int, context: int) -> float:
        """Predict a prefill of ``tokens`` after ``context`` tokens of the same sequence."""
        return self.prefill.predict(_prefill_features(tokens, context))

    def prefill_tokens(self, budget_ms: float, context: int) -> int:
        """Return how many tokens fit into ``budget_ms`` (0 where not even the constant part does)."""
        constant, per_token, per_context = self.prefill.weights
        # tokens x (context + tokens / 2): the chunk attends to itself as well.
        slope = per_token + per_context * context * _PER_1K
        room = budget_ms - constant
        if room <= 0:
            return 0
        square = per_context * 0.5 * _PER_1K
        if square < 1e-9:
            return int(room / max(slope, 1e-6))
        return int((-slope + (slope * slope + 4 * square * room) ** 0.5) / (2 * square))

    def observe_decode(self, shape: DecodeShape, ms: float) -> None:
        """Learn from a single-token step."""
        self.decode.observe(shape, ms)

    def observe_prefill(self, tokens: int, context: int, ms: float) -> None:
        """Learn from a prefill of one sequence."""
        self.prefill.observe(_prefill_features(tokens, context), ms)


def _prefill_features(tokens: int, context: int) -> tuple[float, float, float]:
    return (1.0, tokens, tokens * (context + tokens / 2) * _PER_1K)
