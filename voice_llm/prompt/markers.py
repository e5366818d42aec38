"""Finding the texts of control tokens in other text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise


class MarkerFinder:
    """A set of markers, some thousands in a large vocabulary, that is looked for at little cost."""

    def __init__(self, markers: Iterable[str]) -> None:
        self._markers = frozenset(marker for marker in markers if marker)
        lengths: dict[str, set[int]] = {}
        for marker in self._markers:
            lengths.setdefault(marker[0], set()).add(len(marker))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        firsts = "".join(re.escape(first) for first in sorted(self._lengths))
        self._first = re.compile(f"[{firsts}]") if firsts else None

    def split(self, text: str) -> Iterator[tuple[str, bool]]:
        """Yield the text in pieces, each a marker (True) or plain; from the left, the longest marker first."""
        done = 0
        for start, end in self._occurrences(text):
            if start < done:
                continue
            if start > done:
                yield text[done:start], False
            yield text[start:end], True
            done = end
        if done < len(text):
            yield text[done:], False

    def cut(self, text: str) -> list[str]:
        """Return the text in pieces none of which holds a marker: each occurrence is cut after its first character.

        A marker of one character cannot be cut and stays.
        """
        edges = [0, *(start + 1 for start, end in self._occurrences(text) if end > start + 1), len(text)]
        return [text[start:end] for start, end in pairwise(edges)]

    def _occurrences(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield start and end of the longest marker at each place, overlapping ones too."""
        for candidate in self._first.finditer(text) if self._first else ():
            start = candidate.start()
            for length in self._lengths[text[start]]:
                if text[start : start + length] in self._markers:
                    yield start, start + length
                    break
