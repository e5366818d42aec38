"""VirtualClock: time that moves only when told to."""

from __future__ import annotations


class VirtualClock:
    """A monotonic clock in seconds; call it to read it.

    Example:
        >>> clock = VirtualClock()
        >>> clock.advance(0.25)
        >>> clock()
        0.25
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def __call__(self) -> float:
        """Return the present time, in seconds."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move on; time never runs backwards."""
        if seconds < 0:
            raise ValueError(f"time cannot go back by {-seconds} s")
        self._now_s += seconds
