"""Playback: the queue between what a bot sends and what the caller hears of it."""

from __future__ import annotations

from collections import deque

import numpy as np

from .audio import FRAME_SAMPLES, Samples, silence

__all__ = ["Playback"]


class Playback:
    """Plays what comes in one frame at a time, in order. Holds no clock: each ``play`` is one frame of time."""

    def __init__(self) -> None:
        self._queue: deque[Samples | str] = deque()

    @property
    def unplayed_samples(self) -> int:
        """How much sound is waiting."""
        return sum(len(item) for item in self._queue if not isinstance(item, str))

    def receive(self, samples: Samples) -> None:
        """Append sound."""
        if len(samples):
            self._queue.append(samples)

    def mark(self, name: str) -> None:
        """Ask to be told when all that was received so far has been played."""
        self._queue.append(name)

    def clear(self) -> list[str]:
        """Drop all that is unplayed; return the marks that were in it, which will not be reached."""
        marks = [item for item in self._queue if isinstance(item, str)]
        self._queue.clear()
        return marks

    def play(self, samples: int = FRAME_SAMPLES) -> tuple[Samples, list[str]]:
        """Return the next frame, filled up with silence, and the marks that it reaches."""
        pieces: list[Samples] = []
        marks: list[str] = []
        while self._queue:
            item = self._queue[0]
            if isinstance(item, str):
                marks.append(item)
            elif samples == 0:
                break
            else:
                pieces.append(item[:samples])
                samples -= len(pieces[-1])
                if len(pieces[-1]) < len(item):
                    self._queue[0] = item[len(pieces[-1]) :]
                    continue
            self._queue.popleft()
        return np.concatenate([*pieces, silence(samples)]), marks
