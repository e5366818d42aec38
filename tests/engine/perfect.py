"""A perfect schedule: the earliest deadline first, at every moment, by somebody who knows what each turn takes.

One machine, work that can be interrupted at any time and costs nothing to change: then this order meets all deadlines
that any order meets (Dertouzos 1974). It knows of no steps and no batches.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class SpokenTurn:
    """A turn as work: its first words, and then chunk by chunk before the one before has been heard.

    Attributes:
        arrival_s: When it is asked for.
        due_s: When its first words are.
        first_s: Work until then, in seconds.
        chunks: (work, sound) of each further chunk, in seconds; sound is that of the chunk before it.
        period: Which stretch of work without a pause it fell into.
        spoken_s: When its first words were ready.
        silence_s: How long its caller heard nothing in between, at most.
    """

    arrival_s: float
    due_s: float
    first_s: float
    chunks: Sequence[tuple[float, float]] = ()
    period: int = 0
    spoken_s: float = float("inf")
    silence_s: float = 0.0
    _next: int = field(default=0)
    _sounds_until_s: float = 0.0

    def done(self, now_s: float) -> tuple[float, float] | None:
        """Note that a piece of work is done; returns (deadline, work) of the next."""
        if self._next == 0:
            self.spoken_s = now_s
            self._sounds_until_s = now_s
        else:
            self.silence_s = max(self.silence_s, now_s - self._sounds_until_s)
        if self._next == len(self.chunks):
            return None
        work_s, sound_s = self.chunks[self._next]
        self._next += 1
        self._sounds_until_s = max(now_s, self._sounds_until_s) + sound_s
        return self._sounds_until_s, work_s


def schedule(turns: Sequence[SpokenTurn]) -> None:
    """Do all the work, and note in each turn how it fared."""
    coming = sorted(range(len(turns)), key=lambda i: turns[i].arrival_s, reverse=True)
    waiting: list[tuple[float, int, float]] = []
    now_s, period = 0.0, 0
    while coming or waiting:
        if not waiting and now_s < turns[coming[-1]].arrival_s:
            now_s = turns[coming[-1]].arrival_s
            period += 1
        while coming and turns[coming[-1]].arrival_s <= now_s:
            index = coming.pop()
            turns[index].period = period
            heapq.heappush(waiting, (turns[index].due_s, index, turns[index].first_s))
        due_s, index, left_s = heapq.heappop(waiting)
        until_s = min(now_s + left_s, turns[coming[-1]].arrival_s if coming else float("inf"))
        left_s -= until_s - now_s
        now_s = until_s
        if left_s > 1e-9:
            heapq.heappush(waiting, (due_s, index, left_s))
        elif (more := turns[index].done(now_s)) is not None:
            heapq.heappush(waiting, (more[0], index, more[1]))
