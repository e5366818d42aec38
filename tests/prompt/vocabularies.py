"""Tokenizers for the tests of this room."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import llama_cpp

from voice_llm.backend import base
from voice_llm.prompt import Tokenizer

CHATML = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


def backend_tokenizer_fits(tokenizer: base.Tokenizer) -> Tokenizer:
    """Type checkers hold this: whatever a backend offers is what a prompt needs."""
    return tokenizer


class ByteTokenizer:
    """One token a byte, control tokens above them; finds user-defined ones without being asked, as llama.cpp does.

    ``words`` are tokens from 1000 on that a model may sample and no text is tokenized to.
    """

    def __init__(
        self,
        controls: Sequence[str] = CHATML,
        *,
        user_defined: Collection[str] = (),
        space_prefix: bool = False,
        strips: Collection[str] = (),
        words: Sequence[str] = (),
    ) -> None:
        self.control_tokens: Mapping[str, int] = {text: 256 + number for number, text in enumerate(controls)}
        self.tokenized: list[str] = []
        self._texts = dict(zip(self.control_tokens.values(), controls, strict=True))
        self._user_defined = user_defined
        self._space_prefix = space_prefix
        self._strips = strips
        self._words = {1000 + number: word.encode() for number, word in enumerate(words)}

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        self.tokenized.append(text)
        found = [c for c in self.control_tokens if (parse_special or c in self._user_defined) and c in text]
        if not found:
            return list((" " * self._space_prefix + text).encode()) if text else []
        first = min(found, key=lambda control: (text.index(control), -len(control)))
        before, after = text.split(first, 1)
        if first in self._strips:
            before, after = before.rstrip(), after.lstrip()
        sides = [self.tokenize(side, parse_special=parse_special) for side in (before, after)]
        return [*sides[0], self.control_tokens[first], *sides[1]]

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else self._words.get(token, b"")

    def show(self, tokens: Sequence[int]) -> str:
        """The text of the tokens, control tokens included."""
        return b"".join(self._texts[t].encode() if t in self._texts else self.token_bytes(t) for t in tokens).decode()


class LlamaVocabulary:
    """The vocabulary of a GGUF file, read with llama.cpp."""

    def __init__(self, path: Path) -> None:
        self._model = llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)
        self.chat_template: str = self._model.metadata.get("tokenizer.chat_template", "")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model.model)
        special = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        texts: dict[str, int] = {}
        for token in range(llama_cpp.llama_vocab_n_tokens(self._vocab)):
            attributes = llama_cpp.llama_vocab_get_attr(self._vocab, token)
            text = llama_cpp.llama_vocab_get_text(self._vocab, token).decode()
            is_marker = text[:1] in ("<", "[") and text[-1:] in (">", "]")
            if attributes & special or (attributes & llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED and is_marker):
                texts[text] = token
        self.control_tokens: Mapping[str, int] = texts

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        data = text.encode()
        room = len(data) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), ids, room, False, parse_special)
        assert count >= 0
        return list(ids[:count])

    def token_bytes(self, token: int) -> bytes:
        piece = ctypes.create_string_buffer(512)
        length = llama_cpp.llama_token_to_piece(self._vocab, token, piece, len(piece), 0, False)
        assert length >= 0
        return piece.raw[:length]

    def text(self, tokens: Sequence[int]) -> bytes:
        return b"".join(map(self.token_bytes, tokens))
