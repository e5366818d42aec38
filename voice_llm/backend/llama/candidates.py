"""Logits: rows of logits of a context's last batch, and the array of candidates that llama.cpp's samplers work on.

Nothing here gives the GIL away: numpy does so for every operation on more than 500 elements, and beside a busy event
loop it takes milliseconds to win it back, many times what any sampling costs.
"""

from __future__ import annotations

import ctypes
from functools import cached_property
from typing import Any, Final

import numpy as np

from ...errors import BackendError
from .library import api, last_errors, types

__all__ = ["CANDIDATE", "Logits", "as_native"]

CANDIDATE: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_DATA_TYPE: Final[Any] = dict(types.llama_token_data_array._fields_)["data"]
_NUMPY_KEEPS_GIL_UP_TO: Final = 500


class Logits:
    """Reads the logits of a context's last batch.

    Args:
        context: The native context.
        n_vocab: Tokens of its model's vocabulary.
    """

    def __init__(self, context: Any, n_vocab: int) -> None:
        self.context = context
        self._n_vocab = n_vocab
        self._row_type = ctypes.c_float * n_vocab

    def row(self, row: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return a view of the logits of batch row ``row``: float32, shape (n_vocab,); valid until the next decode."""
        pointer = api.llama_get_logits_ith(self.context, row)
        if not pointer:
            raise BackendError(f"row {row} has no logits: {last_errors()}")
        address = ctypes.addressof(pointer.contents)
        return np.ctypeslib.as_array(self._row_type.from_address(address))

    def candidates(self, row: int) -> Any:
        """Return batch row ``row`` as ``llama_token_data_array``: every token, by id; valid until the next call."""
        values = self.row(row)
        return self._whole_vocabulary.filled(values)

    @cached_property
    def _whole_vocabulary(self) -> _WholeVocabulary:
        # Megabytes, and needed by replies with a grammar only.
        return _WholeVocabulary(self._n_vocab)


class _WholeVocabulary:
    """One array of candidates, written anew for each draw: samplers sort and cut it in place."""

    def __init__(self, n_vocab: int) -> None:
        self._array = np.zeros(n_vocab, dtype=CANDIDATE)
        blank = np.zeros(n_vocab, dtype=CANDIDATE)
        blank["id"] = np.arange(n_vocab, dtype=np.int32)
        self._bytes = self._array.view(np.uint8).data
        self._blank_bytes = blank.view(np.uint8).data
        logits = self._array["logit"]
        step = _NUMPY_KEEPS_GIL_UP_TO
        self._pieces = [(slice(i, i + step), logits[i : i + step]) for i in range(0, n_vocab, step)]

    def filled(self, values: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
        self._bytes[:] = self._blank_bytes
        for where, logits in self._pieces:
            np.copyto(logits, values[where])
        return as_native(self._array)


def as_native(candidates: np.ndarray[Any, Any]) -> Any:
    """Wrap an array of ``CANDIDATE`` as ``llama_token_data_array``; the array must outlive it."""
    native = types.llama_token_data_array()
    native.data = ctypes.cast(candidates.ctypes.data, _DATA_TYPE)
    native.size = len(candidates)
    native.selected = -1
    native.sorted = False
    return native
