"""What this package needs of a tokenizer; every backend satisfies it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Tokenizer(Protocol):
    """Text to tokens and back, usable from any thread."""

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Text to id of every token that stands for structure, not for text (``<|im_end|>``, ``<tool_call>``)."""

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Tokenize without adding any begin or end token.

        Args:
            text: What to tokenize.
            parse_special: Whether the text of a control token becomes that token.
        """

    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a token (possibly part of a character); empty for control tokens."""
