"""DecodeShape and DecodeFit: what the time of a single-token step depends on, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .fits import MovingError

__all__ = ["DecodeFit", "DecodeShape"]

_PER_1K: Final = 1e-3
_LINE: Final = 3
_LEAST_SCALE: Final = 1e-3
# One of the first steps that says that the scale is so many times too large: the one before was delayed.
_FIRST: Final = 4
_MOST_DELAY: Final = 3.0
# Variances are of shares: of a guess for the line, of the line for what is odd; in units of the variance that one
# observation of a step has.
_LINE_VARIANCE: Final = 100.0
_LINE_DRIFT: Final = 4e-3
_LINE_KEPT: Final = 1 - 1e-5
_ODD_VARIANCE: Final = 0.5
_ODD_DRIFT: Final = 3e-3
_KEPT: Final = 1 - 1 / 3000
# No kernel is odder than that.
_MOST_FACTOR: Final = 4.0

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """What the time of a single-token step depends on.

    Attributes:
        runs: Of each micro-batch, the rows in it and the tokens that each of them attends over: the longest context
            of the run; with unified KV that of all calls together.
    """

    runs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, contexts: Sequence[tuple[int, int]], *, split_kv: bool) -> DecodeShape:
        """Build it from (sequence id, context length in tokens) of each row, sorted by id."""
        if not split_kv and contexts:
            return cls(((len(contexts), sum(context for _, context in contexts)),))
        runs: list[tuple[int, int]] = []
        rows, longest, expected = 0, 0, -1
        for sequence_id, context in contexts:
            if sequence_id != expected and rows:
                runs.append((rows, longest))
                rows, longest = 0, 0
            rows += 1
            longest = max(longest, context)
            expected = sequence_id + 1
        if rows:
            runs.append((rows, longest))
        return cls(tuple(runs))

    @property
    def micro_batches(self) -> int:
        """How many micro-batches the backend makes of it."""
        return len(self.runs)

    @property
    def rows(self) -> int:
        """How many there are, one a call."""
        return sum(rows for rows, _ in self.runs)

    @property
    def row_context(self) -> int:
        """Sum over micro-batches of rows x longest context, in tokens."""
        return sum(rows * context for rows, context in self.runs)


class DecodeFit:
    """A sum over micro-batches of shape(rows) + c x rows x context, in milliseconds.

    ``shape`` is a line, a + b x rows, and what is odd about that number of rows: matrix kernels work on blocks, and
    some sizes cost more than the next larger one. All of it is one linear model, followed by a Kalman filter: what an
    observation is off by is shared out by how uncertain the line and the size are. So one odd size leaves the line and
    the other sizes as they are, and what all sizes have in common moves the line. What is odd about a size that is not
    seen is forgotten in time, so that it is tried again.

    Args:
        weights: First guess of a, b and c (c in milliseconds for 1,000 rows x tokens).
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self._units = np.array(weights, dtype=float)  # a, b, c, then the line at 1, 2, 3, ... rows
        self._error = MovingError()
        self._restart(1.0)
        self._scaled = False

    @property
    def weights(self) -> tuple[float, float, float]:
        """The line: a, b and c."""
        a, b, c = (self._state[:_LINE] * self._units[:_LINE]).tolist()
        return a, b, c

    @property
    def error(self) -> float:
        """Moving mean of |predicted - real| / real."""
        return self._error.value

    def predict(self, runs: Sequence[tuple[int, int]]) -> float:
        """Return the time of a step of these runs (see ``DecodeShape``); never negative."""
        shapes = self._shapes
        a, b, c = self._line
        ms = 0.0
        for rows, context in runs:
            ms += (shapes[rows] if rows < len(shapes) else a + b * rows) + c * _PER_1K * rows * context
        return ms

    def observe(self, shape: DecodeShape, ms: float) -> None:
        """Learn that a step of that shape took ``ms``."""
        predicted = self.predict(shape.runs)
        if self._is_start(predicted, ms):
            self._restart(ms / predicted)
            predicted = ms
        else:
            self._error.note(predicted, ms)
        self._make_room(max((rows for rows, _ in shape.runs), default=0))
        x = self._features(shape)
        scale = max(predicted, _LEAST_SCALE * float(x[:_LINE].sum()))
        if scale > 0:
            surprise = (ms - predicted) / scale
            bounded = self._error.bounded(surprise)
            self._learn(x / scale, bounded, fully=bounded == surprise)

    def _is_start(self, predicted: float, ms: float) -> bool:
        """Whether the guess is to be scaled to this: the first step, or one that shows that it was delayed by much."""
        if predicted <= 0 or ms <= 0:
            return False
        return not self._scaled or (self._error.notes < _FIRST and ms * _MOST_DELAY < predicted)

    def _restart(self, scale: float) -> None:
        self._scaled = True
        self._units = self._units[:_LINE] * scale
        self._state = np.ones(_LINE)
        self._covariance = np.diag(np.full(_LINE, _LINE_VARIANCE))
        self._tabulate()

    def _features(self, shape: DecodeShape) -> Vector:
        x: Vector = np.zeros(len(self._units))
        x[:_LINE] = (shape.micro_batches, shape.rows, shape.row_context * _PER_1K)
        for rows, _ in shape.runs:
            x[_LINE + rows - 1] += 1
        x *= self._units
        return x

    def _learn(self, x: Vector, surprise: float, *, fully: bool) -> None:
        p = self._covariance
        self._state[_LINE:] *= _KEPT
        p *= self._kept_covariance
        p.flat[:: len(p) + 1] += self._drift
        px = p @ x
        gain = px / (1 + float(x @ px))
        self._state += gain * surprise
        if fully:  # what was cut off may well be true
            p -= np.outer(gain, px)
        np.maximum(self._state[:_LINE], 0.0, out=self._state[:_LINE])
        self._tabulate()

    def _make_room(self, most: int) -> None:
        """Know of sizes up to ``most``: not odd, as far as anybody knows."""
        known = len(self._units) - _LINE
        if most <= known:
            return
        a, b, _ = self.weights
        new = np.array([a + b * rows for rows in range(known + 1, most + 1)])
        self._units = np.concatenate((self._units, new))
        self._state = np.concatenate((self._state, np.zeros(len(new))))
        n = len(self._units)
        covariance = np.diag(np.full(n, _ODD_VARIANCE))
        covariance[: n - len(new), : n - len(new)] = self._covariance
        self._covariance = covariance
        kept = np.full(n, _KEPT)
        kept[:_LINE] = _LINE_KEPT
        self._kept_covariance = np.outer(kept, kept)
        self._drift = np.full(n, _ODD_DRIFT)
        self._drift[:_LINE] = _LINE_DRIFT
        self._tabulate()

    def _tabulate(self) -> None:
        """Prepare predictions, of which there are many for each observation."""
        self._line = self.weights
        a, b, _ = self._line
        odd = (self._state[_LINE:] * self._units[_LINE:]).tolist()
        lines = [a + b * rows for rows in range(1, len(odd) + 1)]
        self._shapes = [
            0.0,
            *(min(max(ms + more, ms / _MOST_FACTOR), ms * _MOST_FACTOR) for ms, more in zip(lines, odd, strict=True)),
        ]
