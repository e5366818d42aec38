"""From the pieces of a prompt to token ids; the one place where text becomes a control token, or does not."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import InvalidRequestError
from .markers import MarkerFinder
from .template import Literal
from .tokenizer import Tokenizer

_ANCHOR = "\n"
_SPACE = " \t\n\r\v\f"


@dataclass(frozen=True, slots=True)
class Text:
    """What somebody said or wrote: never a control token."""

    text: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """Tokens of a reply, as they were sampled."""

    tokens: tuple[int, ...]


Piece = Literal | Text | Sampled


class _Control(NamedTuple):
    token: int
    strips_before: bool
    strips_after: bool


class TokenEncoder:
    """Turns pieces into the ids that llama.cpp gives for the whole prompt, except where content looks like a marker.

    Neighbouring plain text, whether printed by the template or said by somebody, is tokenized as one fragment, as it
    would be in the whole prompt. A marker in it, also one that only arises where two pieces meet, is cut after its
    first character and the sides are tokenized apart: switching special tokens off is not enough, since llama.cpp
    finds user-defined ones even so. The text stays the same to the byte.

    Some vocabularies (Llama 2, Mistral 7B) put a space before each text that they tokenize. The first fragment and
    those after a control token get it, as in the whole prompt; one that continues text does not.

    Fragments are remembered, so a long context is tokenized once, not every turn. Safe to use from several threads.

    Args:
        tokenizer: The model's.
        cache_chars: How much text is remembered; about 10 bytes a character.
    """

    def __init__(self, tokenizer: Tokenizer, *, cache_chars: int = 1_000_000) -> None:
        self._tokenizer = tokenizer
        self._markers = MarkerFinder(tokenizer.control_tokens)
        self._control_ids = frozenset(tokenizer.control_tokens.values())
        self._controls: dict[str, _Control] = {}
        self._anchor = self._find_anchor()
        self._cache = _FragmentCache(cache_chars)

    def encode(self, pieces: Iterable[Piece]) -> list[int]:
        """Tokenize a prompt or a part of one.

        Raises:
            InvalidRequestError: Some content cannot be told from a control token in this vocabulary.
        """
        ids: list[int] = []
        fragment = ""
        previous: _Control | None = None
        for unit in self._units(pieces):
            if isinstance(unit, str):
                fragment += unit
                continue
            control = unit if isinstance(unit, _Control) else None
            ids += self._encode_fragment(fragment, previous, control, continues=bool(ids) and previous is None)
            ids += unit.tokens if isinstance(unit, Sampled) else (unit.token,)
            fragment, previous = "", control
        ids += self._encode_fragment(fragment, previous, None, continues=bool(ids) and previous is None)
        return ids

    def _units(self, pieces: Iterable[Piece]) -> Iterator[str | _Control | Sampled]:
        for piece in pieces:
            if isinstance(piece, Sampled):
                yield piece
            elif isinstance(piece, Text):
                yield piece.text
            else:
                for text, is_control in self._markers.split(piece.text):
                    yield self._control(text) if is_control else text

    def _encode_fragment(
        self, fragment: str, previous: _Control | None, following: _Control | None, *, continues: bool
    ) -> tuple[int, ...]:
        if previous and previous.strips_after:
            fragment = fragment.lstrip(_SPACE)
        if following and following.strips_before:
            fragment = fragment.rstrip(_SPACE)
        if not fragment:
            return ()
        known = self._cache.get((fragment, continues))
        if known is None:
            known = self._encode_plain(fragment, continues)
            self._cache.put((fragment, continues), known)
        return known

    def _encode_plain(self, text: str, continues: bool) -> tuple[int, ...]:
        ids: list[int] = []
        for number, piece in enumerate(self._markers.cut(text)):
            ids += self._tokenize(piece, continues or number > 0)
        if not self._control_ids.isdisjoint(ids):
            # Not seen in any vocabulary: a control token of one character, or one that a normalizer makes from other
            # text.
            raise InvalidRequestError(
                "the text holds characters that this model can only read as a control token", param="messages"
            )
        return tuple(ids)

    def _tokenize(self, text: str, continues: bool) -> list[int]:
        if continues and self._anchor:
            ids = self._tokenizer.tokenize(_ANCHOR + text)
            if ids[: len(self._anchor)] == self._anchor:
                return ids[len(self._anchor) :]
        return self._tokenizer.tokenize(text)

    def _find_anchor(self) -> list[int]:
        """Return the ids of a line break where the vocabulary puts a space before every text, else nothing."""
        printed = b"".join(map(self._tokenizer.token_bytes, self._tokenizer.tokenize("a")))
        return self._tokenizer.tokenize(_ANCHOR) if printed == b" a" else []

    def _control(self, text: str) -> _Control:
        """Find out, by trying, whether a control token swallows the white space around it (as Phi-3's do)."""
        known = self._controls.get(text)
        if known is None:
            token = self._tokenizer.control_tokens[text]
            alone = [token]
            known = self._controls[text] = _Control(
                token,
                strips_before=self._tokenizer.tokenize("\n" + text, parse_special=True) == alone,
                strips_after=self._tokenizer.tokenize(text + "\n", parse_special=True) == alone,
            )
        return known


class _FragmentCache:
    """The most recently used fragments, bounded by the sum of their lengths."""

    def __init__(self, capacity_chars: int) -> None:
        self._capacity_chars = capacity_chars
        self._held_chars = 0
        self._entries: OrderedDict[tuple[str, bool], tuple[int, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, bool]) -> tuple[int, ...] | None:
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, key: tuple[str, bool], ids: tuple[int, ...]) -> None:
        with self._lock:
            if key in self._entries or len(key[0]) > self._capacity_chars:
                return
            self._entries[key] = ids
            self._held_chars += len(key[0])
            while self._held_chars > self._capacity_chars:
                self._held_chars -= len(self._entries.popitem(last=False)[0][0])
