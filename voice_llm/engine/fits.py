"""LinearFit: learns one observation at a time; MovingError: how well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["LinearFit", "MovingError"]

_ERROR_RATE: Final = 0.05
_EARLY_NOTES: Final = 16
_UNUSUAL: Final = 3.0
_LEAST_SCALE: Final = 1e-3
_LEAK: Final = 1 - 1e-5


class MovingError:
    """Moving mean of |predicted - real| / real.

    Attributes:
        value: The mean; 0 before the first note.
        notes: How many there were.
    """

    def __init__(self) -> None:
        self.value = 0.0
        self.notes = 0

    def note(self, predicted: float, real: float) -> None:
        """Add a prediction that was compared with what came."""
        if real <= 0:
            return
        self.notes += 1
        self.value += max(_ERROR_RATE, 1 / self.notes) * (abs(predicted - real) / real - self.value)

    def bounded(self, surprise: float) -> float:
        """Bound what is to be learned from (real - predicted) / predicted.

        An error far beyond the usual is no news of the machine, but another process that took the core. One that goes
        on becomes usual.
        """
        most = 1.0 if self.notes < _EARLY_NOTES else min(max(_UNUSUAL * self.value, 0.2), 1.0)
        return min(max(surprise, -most), most)


class LinearFit:
    """Recursive least squares for weights that drift: y = w . x, from a stream of (x, y).

    Errors count in shares of the prediction, so that small steps matter as much as large ones. The first observation
    scales the guess, whose ratios are worth more than its size: machines differ a hundredfold. Outliers move it little,
    unless they go on.

    Args:
        weights: First guess; none is 0.
        trust: How far off the guess may be; larger learns faster.
        drift: By how much weights may change from one observation to the next; larger forgets faster. Both are
            variances of a weight as a share of its guess, in units of an observation's variance.
    """

    def __init__(self, weights: Sequence[float], *, trust: float = 300.0, drift: float = 3e-3) -> None:
        self.weights = list(weights)
        self._units = list(weights)
        n = len(self.weights)
        self._covariance = [[trust if i == j else 0.0 for j in range(n)] for i in range(n)]
        self._drift = drift
        self._scaled = False
        self._error = MovingError()

    @property
    def error(self) -> float:
        """Moving mean of |predicted - real| / real."""
        return self._error.value

    def predict(self, x: Sequence[float]) -> float:
        """Return the prediction; never negative."""
        return max(0.0, sum(w * v for w, v in zip(self.weights, x, strict=True)))

    def observe(self, x: Sequence[float], y: float) -> None:
        """Learn that ``x`` took ``y``."""
        predicted = self.predict(x)
        if self._scaled:
            self._error.note(predicted, y)
        elif predicted > 0 and y > 0:
            self._scaled = True
            self.weights = [w * y / predicted for w in self.weights]
            self._units = list(self.weights)
            predicted = y
        scale = max(predicted, _LEAST_SCALE * sum(u * v for u, v in zip(self._units, x, strict=True)))
        if scale <= 0:
            return
        x_scaled = [u * v / scale for u, v in zip(self._units, x, strict=True)]
        surprise = (y - predicted) / scale
        bounded = self._error.bounded(surprise)
        self._learn(x_scaled, bounded, fully=bounded == surprise)

    def _learn(self, x: Sequence[float], surprise: float, *, fully: bool) -> None:
        p, n = self._covariance, len(x)
        px = [sum(p[i][j] * x[j] for j in range(n)) for i in range(n)]
        scale = 1 + sum(x[i] * px[i] for i in range(n))
        for i in range(n):
            gain = px[i] / scale
            learned = gain if fully else 0.0  # what was cut off may well be true
            self.weights[i] = max(0.0, self.weights[i] + gain * surprise * self._units[i])
            for j in range(n):
                # What nothing is learned of grows uncertain, but not without end.
                p[i][j] = (p[i][j] - learned * px[j]) * _LEAK + (self._drift if i == j else 0.0)
