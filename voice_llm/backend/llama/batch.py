"""NativeBatch: a ``llama_batch`` whose arrays are allocated once."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..base import BatchEntry
from .library import types


class NativeBatch:
    """Arrays for up to ``capacity`` tokens, each of one sequence; filled in place for every decode."""

    def __init__(self, capacity: int) -> None:
        self._token = np.zeros(capacity, dtype=np.int32)
        self._position = np.zeros(capacity, dtype=np.int32)
        self._sequence = np.zeros(capacity, dtype=np.int32)
        self._sequence_count = np.ones(capacity, dtype=np.int32)
        self._wants_logits = np.zeros(capacity, dtype=np.int8)
        # seq_id is an array of pointers, one a token, into the array of ids.
        self._sequence_pointers = (
            self._sequence.ctypes.data + self._sequence.itemsize * np.arange(capacity, dtype=np.uint64)
        ).astype(np.uint64)
        self._offsets = np.arange(capacity, dtype=np.int32)
        self.native: Any = types.llama_batch()
        self.native.token = _pointer(self._token, ctypes.c_int32)
        self.native.pos = _pointer(self._position, ctypes.c_int32)
        self.native.n_seq_id = _pointer(self._sequence_count, ctypes.c_int32)
        self.native.seq_id = self._sequence_pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
        self.native.logits = _pointer(self._wants_logits, ctypes.c_int8)

    def fill(self, entries: Sequence[BatchEntry]) -> list[int]:
        """Write the entries one after the other; returns each entry's row with logits, or -1 where it wants none."""
        start = 0
        rows: list[int] = []
        for entry in entries:
            end = start + len(entry.tokens)
            if end == start + 1:
                # The step of a talking call; slices cost ten times as much.
                self._token[start] = entry.tokens[0]
                self._position[start] = entry.position
                self._sequence[start] = entry.sequence_id
            else:
                self._token[start:end] = entry.tokens
                self._position[start:end] = self._offsets[: end - start] + entry.position
                self._sequence[start:end] = entry.sequence_id
                self._wants_logits[start : end - 1] = 0
            self._wants_logits[end - 1] = entry.wants_logits
            rows.append(end - 1 if entry.wants_logits else -1)
            start = end
        self.native.n_tokens = start
        return rows


def _pointer(array: np.ndarray[Any, Any], ctype: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctype))
