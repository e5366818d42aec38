"""CostModel: how long a step will take, learned from the steps before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["CostModel", "DecodeShape", "LinearFit"]

_PER_1K = 1e-3


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """What the time of a single-token step depends on.

    Attributes:
        micro_batches: How many micro-batches the backend makes of it.
        rows: One a call.
        row_context: Sum over micro-batches of rows x longest context, in tokens.
    """

    micro_batches: int
    rows: int
    row_context: int

    @classmethod
    def of(cls, contexts: Sequence[tuple[int, int]], *, split_kv: bool) -> DecodeShape:
        """Build it from (sequence id, context length in tokens) of each row, sorted by id."""
        if not split_kv:
            return cls(1, len(contexts), len(contexts) * sum(c for _, c in contexts))
        runs: list[list[int]] = []
        last = -2
        for sequence_id, context in contexts:
            if sequence_id == last + 1:
                runs[-1].append(context)
            else:
                runs.append([context])
            last = sequence_id
        return cls(len(runs), len(contexts), sum(len(run) * max(run) for run in runs))


class LinearFit:
    """Recursive least squares with forgetting: y = w . x, from a stream of (x, y).

    The first observation scales the guess, whose ratios are worth more than its size: machines differ a hundredfold.
    Later outliers (another process took the core) move it little: an error counts at most as large as the prediction.

    Args:
        weights: First guess.
        trust: How sure the guess is; larger learns faster.
        forgetting: Share of the past kept at each observation.
    """

    def __init__(self, weights: Sequence[float], *, trust: float = 1.0, forgetting: float = 0.995) -> None:
        self.weights = list(weights)
        n = len(self.weights)
        self._covariance = [[trust if i == j else 0.0 for j in range(n)] for i in range(n)]
        self._forgetting = forgetting
        self._scaled = False
        self.error = 0.0
        """Moving mean of |predicted - real| / real."""

    def predict(self, x: Sequence[float]) -> float:
        """Return the prediction; never negative."""
        return max(0.0, sum(w * v for w, v in zip(self.weights, x, strict=True)))

    def observe(self, x: Sequence[float], y: float) -> None:
        """Learn that ``x`` took ``y``."""
        predicted = self.predict(x)
        if not self._scaled and predicted > 0 and y > 0:
            self._scaled = True
            self.weights = [w * y / predicted for w in self.weights]
            predicted = y
        self.error += 0.05 * (abs(predicted - y) / max(y, 1e-6) - self.error)
        surprise = max(-predicted, min(y - predicted, predicted + 1e-3))
        p, n = self._covariance, len(x)
        px = [sum(p[i][j] * x[j] for j in range(n)) for i in range(n)]
        scale = self._forgetting + sum(x[i] * px[i] for i in range(n))
        gain = [v / scale for v in px]
        for i in range(n):
            self.weights[i] = max(0.0, self.weights[i] + gain[i] * surprise)
            for j in range(n):
                p[i][j] = (p[i][j] - gain[i] * px[j]) / self._forgetting
        self._bound()

    def _bound(self) -> None:
        # Without news in some direction, forgetting would let its variance grow without end.
        largest = max(self._covariance[i][i] for i in range(len(self.weights)))
        if largest > 1e4:
            shrink = 1e4 / largest
            self._covariance = [[v * shrink for v in row] for row in self._covariance]


class CostModel:
    """Predicts step times in milliseconds and learns from each step.

    Decode: micro-batches, rows and rows x context. Prefill: a constant, tokens and tokens x context. The first
    guesses are those of a small model on a few CPU cores; calibration at warm-up replaces them.
    """

    def __init__(self) -> None:
        self.decode = LinearFit([4.0, 4.0, 1.0])
        self.prefill = LinearFit([4.0, 4.0, 0.5])
        self.copy_ms_per_token = 0.004
        """Time to move a sequence to another id (save and restore), in milliseconds a token."""

    def __repr__(self) -> str:
        decode = ", ".join(f"{w:.2f}" for w in self.decode.weights)
        prefill = ", ".join(f"{w:.2f}" for w in self.prefill.weights)
        return f"<CostModel [decode ms: {decode} | prefill ms: {prefill}]>"

    def decode_ms(self, shape: DecodeShape) -> float:
        """Predict a single-token step."""
        return self.decode.predict(_decode_features(shape))

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
        self.decode.observe(_decode_features(shape), ms)

    def observe_prefill(self, tokens: int, context: int, ms: float) -> None:
        """Learn from a prefill of one sequence."""
        self.prefill.observe(_prefill_features(tokens, context), ms)


def _decode_features(shape: DecodeShape) -> tuple[float, float, float]:
    return (shape.micro_batches, shape.rows, shape.row_context * _PER_1K)


def _prefill_features(tokens: int, context: int) -> tuple[float, float, float]:
    return (1.0, tokens, tokens * (context + tokens / 2) * _PER_1K)
