"""SentenceChunker: cut a reply into pieces that a voice can begin to speak."""

from __future__ import annotations

import re

from ..errors import ConfigError
from .boundaries import MARKS, Boundary, boundary_at

# The white space between two words, seen once the next letter or digit is there; none is needed after some marks.
_GAP = re.compile(r"(?:(?<!\s)\s++|(?<=[—。！？]))(?=\W*(\w))")
_WORD = re.compile(r"\w")


class SentenceChunker:
    """Cut text at the ends of sentences and lines, as soon as no further text can change that.

    A boundary is certain when the next word begins, so a chunk comes with that word's first letter. The first chunk may
    end at a clause, so that speech starts early. The chunks joined are the text; white space stays at the end of the
    chunk before it. Every chunk has a letter or digit in it, unless the whole reply has none.
    """

    def __init__(
        self,
        language: str = "en",
        *,
        first_clause_min_chars: int | None = 16,
        soft_limit_chars: int = 120,
        hard_limit_chars: int = 240,
    ) -> None:
        """Take the language and the lengths.

        Args:
            language: Code of the reply's language, such as ``tr`` or ``en-US``; its first part counts.
            first_clause_min_chars: Shortest first chunk that may end at a clause. 16 is about a second of speech.
                None: it is like any other.
            soft_limit_chars: From this length on a chunk may end at a clause.
            hard_limit_chars: From this length on a chunk may end at a space.

        Raises:
            ConfigError: The lengths are not positive or the soft limit is above the hard one.
        """
        if first_clause_min_chars is None:
            first_clause_min_chars = soft_limit_chars
        if first_clause_min_chars < 1 or not 1 <= soft_limit_chars <= hard_limit_chars:
            raise ConfigError("chunk lengths must be positive, and the soft limit at most the hard one")
        self._language = re.split("[-_]", language)[0].lower()
        self._clause_min = first_clause_min_chars
        self._soft_limit = soft_limit_chars
        self._hard_limit = hard_limit_chars
        self._text = ""
        self._decided = 0  # no boundary before this index of the text
        self._awaits_word_end = False  # whether a boundary depends on the rest of the word after it

    def decode(self, text: str) -> list[str]:
        """Return the chunks that ``text`` completes."""
        self._text += text
        if not self._awaits_word_end and not _WORD.search(text):
            return []  # only a word makes a boundary certain; endless punctuation must not be searched at every token
        return self._cut(final=False)

    def flush(self) -> list[str]:
        """Return the rest of the reply, if there is any."""
        chunks = self._cut(final=True)
        if self._text:
            chunks.append(self._text)
            self._text = ""
        return chunks

    def _cut(self, *, final: bool) -> list[str]:
        chunks: list[str] = []
        while (end := self._next_end(final=final)) is not None:
            chunks.append(self._text[:end])
            self._text = self._text[end:]
            self._decided = 0
            self._clause_min = self._soft_limit
        return chunks

    def _next_end(self, *, final: bool) -> int | None:
        """Return where the first certain chunk ends, or None."""
        text = self._text
        for gap in _GAP.finditer(text, self._decided):
            ends = self._ends_at(gap, final=final)
            self._awaits_word_end = ends is None
            if ends is None:
                return None
            if ends and _WORD.search(text, 0, gap.start()):
                return gap.end()
            self._decided = gap.end()
        return None

    def _ends_at(self, gap: re.Match[str], *, final: bool) -> bool | None:
        """Whether a chunk ends at ``gap``; None where that is not certain yet."""
        end = gap.start()
        if "\n" in gap[0]:
            return True
        if end < self._hard_limit and gap.string[end - 1 : end] not in MARKS:
            return False
        boundary = boundary_at(gap.string, end, gap.start(1), self._language, final=final)
        if boundary is None:
            return None
        if boundary is Boundary.SENTENCE:
            return True
        limit = self._clause_min if boundary is Boundary.CLAUSE else self._hard_limit
        return boundary is not Boundary.NONE and end >= limit
