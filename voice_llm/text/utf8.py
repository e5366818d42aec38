"""Utf8Decoder: token bytes to whole characters."""

from __future__ import annotations

import codecs


class Utf8Decoder:
    """Decode UTF-8 that may be cut inside a character; invalid bytes become U+FFFD."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def decode(self, data: bytes) -> str:
        """Return the characters that ``data`` completes; an incomplete tail is held back."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """Drop an incomplete tail: only a reply that was cut ends in one, and a voice cannot speak half a character."""
        self._decoder.reset()
        return ""
