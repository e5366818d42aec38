"""When turns count in a point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

__all__ = ["Window"]

# An opening prompt takes about as long to compute where nothing else is done: dialling all at once would leave a queue
# that a window never sees the end of.
_RAMP_S_A_CALL: Final = 2.0
_SETTLE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Window:
    """When turns count, in seconds since the callers began: they dial one by one, and what is left of that settles.

    Attributes:
        ramp_s: How long callers dial.
        opens_s: From when turns count.
        closes_s: Until when; callers hang up then.
    """

    ramp_s: float
    opens_s: float
    closes_s: float

    @classmethod
    def of(cls, calls: int, point_s: float) -> Self:
        """Return the window of ``point_s`` seconds for so many callers."""
        ramp_s = min(_RAMP_S_A_CALL * calls, point_s / 2)
        opens_s = ramp_s + min(_SETTLE_S, point_s / 5)
        return cls(ramp_s, opens_s, opens_s + point_s)
