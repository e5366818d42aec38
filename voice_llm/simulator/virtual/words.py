"""WordTokenizer: tokens about as long as those of a language model, without one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ...backend.base import BackendInfo
from ...testing.backend import CHATML, CONTROL_TOKENS

__all__ = ["WordTokenizer"]

_CONTROL: Final = re.compile("|".join(map(re.escape, sorted(CONTROL_TOKENS, key=len, reverse=True))))
_END_OF_TURN: Final = "<|im_end|>"


class WordTokenizer:
    """Cuts words into pieces of a few letters; a piece gets its number when it is first seen.

    Args:
        piece_chars: Most letters of a piece. At 5, English has about 1.3 tokens a word and Turkish 1.8.
    """

    def __init__(self, piece_chars: int = 5) -> None:
        self._pattern = re.compile(rf" ?[^\W_]{{1,{piece_chars}}}|[^\w\s]|_|\s")
        self._ids = {text: number for number, text in enumerate(CONTROL_TOKENS)}
        self._texts = list(self._ids)
        self._info = BackendInfo(
            model_id="words",
            sequences=1,
            context_per_call=1,
            max_batch_tokens=1,
            chat_template=CHATML,
            eos_token=_END_OF_TURN,
        )
        self._control = dict(self._ids)

    @property
    def info(self) -> BackendInfo:
        """See ``Tokenizer``; sizes are the backend's."""
        return self._info

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """See ``Tokenizer``."""
        return self._control

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """See ``Tokenizer``."""
        if not parse_special:
            return [self._id(piece) for piece in self._pattern.findall(text)]
        tokens: list[int] = []
        end = 0
        for match in _CONTROL.finditer(text):
            tokens += self.tokenize(text[end : match.start()])
            tokens.append(self._control[match.group()])
            end = match.end()
        return tokens + self.tokenize(text[end:])

    def token_bytes(self, token: int) -> bytes:
        """See ``Tokenizer``."""
        text = self._texts[token]
        return b"" if text in self._control and text.startswith("<|") else text.encode()

    def _id(self, piece: str) -> int:
        known = self._ids.get(piece)
        if known is None:
            known = self._ids[piece] = len(self._texts)
            self._texts.append(piece)
        return known
