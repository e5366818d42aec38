"""What became of the replies that were begun before the caller's turn had surely ended."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Speculation", "SpeculationCounters"]


@dataclass(slots=True)
class SpeculationCounters:
    """Running totals of one call's eager turns.

    Attributes:
        started: Replies begun before the turn had ended.
        confirmed: Those that were the answer.
        withdrawn: Those that were thrown away: the caller went on, or the reply asked for a tool.
        wasted_tokens: Tokens sampled for replies that were thrown away.
    """

    started: int = 0
    confirmed: int = 0
    withdrawn: int = 0
    wasted_tokens: int = 0


class Speculation:
    """One reply begun early; counts its outcome, whichever of outcome and last token comes first."""

    def __init__(self, counters: SpeculationCounters) -> None:
        self._counters = counters
        self._settled = False
        self._withdrawn = False
        self._completion_tokens = 0
        counters.started += 1

    def confirm(self) -> None:
        """The turn has ended, and this is its answer."""
        if not self._settled:
            self._settled = True
            self._counters.confirmed += 1

    def withdraw(self) -> None:
        """The reply is thrown away; after an outcome it stays as it is."""
        if not self._settled:
            self._settled = self._withdrawn = True
            self._counters.withdrawn += 1
            self._counters.wasted_tokens += self._completion_tokens

    def finish(self, completion_tokens: int) -> None:
        """The reply has ended after so many sampled tokens."""
        self._completion_tokens = completion_tokens
        if self._withdrawn:
            self._counters.wasted_tokens += completion_tokens
