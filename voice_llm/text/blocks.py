"""BlockSplitter: take marked blocks such as ``<think>...</think>`` out of a text."""

from __future__ import annotations


class BlockSplitter:
    """Split a text into what is outside and what is inside its blocks.

    White space between a leading block and the text after it is dropped. A block that is never closed lasts to the end
    of the text.
    """

    def __init__(self, opening: str, closing: str, *, inside: bool = False) -> None:
        """Take the two markers.

        Args:
            opening: Marker that begins a block.
            closing: Marker that ends it.
            inside: Whether the text begins within a block, its opening marker being part of the prompt.
        """
        self._opening = opening
        self._closing = closing
        self._is_inside = inside
        self._has_text = False  # whether anything visible was outside so far
        self._had_block = False
        self._held = ""
        self._blocks: list[str] = []

    def decode(self, text: str) -> str:
        """Return the new text outside of blocks; what may be the beginning of a marker is held back."""
        if self._has_text and not self._held and not self._is_inside and self._opening[0] not in text:
            return text
        text = self._held + text
        outside: list[str] = []
        while True:
            marker = self._closing if self._is_inside else self._opening
            head, found, tail = text.partition(marker)
            if not found:
                break
            self._route(head, outside)
            self._is_inside = not self._is_inside
            self._had_block = True
            text = tail
        held = overlap(text, marker)
        self._held = text[len(text) - held :]
        self._route(text[: len(text) - held], outside)
        return "".join(outside)

    def flush(self) -> str:
        """Return the text outside of blocks that was held back."""
        outside: list[str] = []
        self._route(self._held, outside)
        self._held = ""
        return "".join(outside)

    def take_inside(self) -> str:
        """Return the text inside of blocks since this was last asked."""
        if not self._blocks:
            return ""
        taken = "".join(self._blocks)
        self._blocks.clear()
        return taken

    def _route(self, text: str, outside: list[str]) -> None:
        if self._is_inside:
            self._blocks.append(text)
            return
        if not self._has_text:
            text = text.lstrip() if self._had_block else text
            self._has_text = bool(text) and not text.isspace()
        outside.append(text)


def overlap(text: str, marker: str) -> int:
    """Return the length of the longest proper beginning of ``marker`` that ``text`` ends with."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
