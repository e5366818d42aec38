"""Where speech may pause: what kind of boundary a gap between two words is.

``sentencex`` decides on sentences. The tables and rules around it are for what it gets wrong on the phone: Turkish
ordinals and titles, addresses, clock times, a sentence that is only "No.", brackets and ellipses.
"""

from __future__ import annotations

import re
from enum import IntEnum

from sentencex import segment


class Boundary(IntEnum):
    """How good a place for a pause is; greater is better."""

    NONE = 0
    """A pause here would be wrong: inside a number, a name, an abbreviation."""
    SPACE = 1
    CLAUSE = 2
    SENTENCE = 3


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Never the end of a sentence: titles, parts of addresses and of company names.
_BEFORE_NAME = _words(
    "dr prof doç yrd öğr gör arş uzm op av sn müh mim ecz dt hz alb bnb cad cd sok sk mah mh apt blv ltd şti a.ş"
    " ör örn bkz mr mrs ms mx st"
)
# An abbreviation only where a number follows.
_BEFORE_NUMBER = _words(
    "no nr tel faks fax dah ext acct approx yakl max min est art d k s p pp"
    " jan feb mar apr jun jul aug sep sept oct nov dec"
)
_TURKISH_ORDINAL = re.compile(r"\d{1,3}")
_AFTER_ORDINAL = _words(
    "ocak şubat mart nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık"
    " gün hafta ay yıl dönem kat daire blok cadde sokak etap kısım levent sınıf derece kademe bölge bölüm madde fıkra"
    " seans noter noterlik icra asliye sulh ağır aile iş tüketici"
)
_CLOCK_HALF = re.compile(r"[ap]\.m", re.IGNORECASE)
_AFTER_CLOCK = _words(
    "monday tuesday wednesday thursday friday saturday sunday january february april june july august september"
    " october november december eastern central mountain pacific"
)
# For a language: a word before a full stop, and the words that continue the sentence after it despite their capital.
_CONTINUED = {"tr": (_TURKISH_ORDINAL, _AFTER_ORDINAL), "en": (_CLOCK_HALF, _AFTER_CLOCK)}

_ROMAN_NUMERAL = re.compile(r"[IVX]{2,}")
_LIST_MARKER = re.compile(r"(?:^|[:;,]\s*)\d{1,2}\.$")
_CLOSERS = "\"'”’»)]"
_WORD = re.compile(r"\w+")
MARKS = frozenset(_CLOSERS + ".!?…。！？؟।,;:-–—")
"""Characters before a gap that can make it more than a space."""


def boundary_at(text: str, end: int, start: int, language: str, *, final: bool) -> Boundary | None:
    """Say what the gap between ``text[:end]`` and the letter or digit at ``start`` is.

    Args:
        text: Text since the last boundary.
        end: Where the gap's white space begins.
        start: Where the next letter or digit is.
        language: Two-letter code.
        final: Whether ``text`` is the end of the reply.

    Returns:
        The boundary, or None where the rest of the next word decides.
    """
    head = text[:end].rstrip(_CLOSERS)
    following = text[start]
    mark = head[-1:]
    is_closed = len(head) < end
    if mark and mark in ".!?…。！？؟।":
        if mark == "." and head[-2:-1] != ".":
            return _full_stop(head, text, start, language, final=final)
        continues = following.islower() and (is_closed or mark in ".…")
        return Boundary.CLAUSE if continues else Boundary.SENTENCE
    before = head[:-1].rstrip()[-1:]
    if mark == ":":
        return Boundary.NONE if following.isdigit() else Boundary.CLAUSE  # a number stays with its label
    if (mark and mark in ",;") or mark == "—" or (mark and mark in "-–" and head[-2:-1].isspace()):
        return Boundary.NONE if before.isdigit() and following.isdigit() else Boundary.CLAUSE
    if is_closed and text[end - 1] in ")]":
        return Boundary.CLAUSE if "(" in head or "[" in head else Boundary.NONE  # "2)" is a list marker
    return Boundary.NONE if mark.isdigit() and following.isdigit() else Boundary.SPACE


def _full_stop(head: str, text: str, start: int, language: str, *, final: bool) -> Boundary | None:
    following = text[start]
    word = head[:-1].split()[-1:]
    last = word[0].lstrip("\"'“‘«([") if word else ""
    key = _fold(last)
    abbreviated = key in _BEFORE_NAME or (key in _BEFORE_NUMBER and following.isdigit())
    if abbreviated or _ROMAN_NUMERAL.fullmatch(last) or _LIST_MARKER.search(head.lstrip()):
        return Boundary.NONE
    if following.islower():
        return Boundary.NONE if len(last) <= 3 or "." in last or last.isdigit() else Boundary.CLAUSE
    if language in _CONTINUED:
        before, after = _CONTINUED[language]
        if before.fullmatch(last):
            continues = _is_word_of(after, text, start, final=final)
            if continues is not False:
                return Boundary.NONE if continues else None
    if key == "no" or _is_sentence(head, following, language):
        return Boundary.SENTENCE
    return Boundary.NONE


def _is_word_of(words: frozenset[str], text: str, start: int, *, final: bool) -> bool | None:
    """Whether the word at ``start`` is one of ``words``, with or without an ending; None where it may become one."""
    match = _WORD.match(text, start)
    word = _fold(match[0]) if match else ""
    if match and match.end() == len(text) and not final and any(known.startswith(word) for known in words):
        return None
    return word in words or any(len(known) > 3 and word.startswith(known) for known in words)


def _is_sentence(head: str, following: str, language: str) -> bool:
    # Plain spaces only: sentencex panics, past any `except Exception`, on white space such as U+0085 after an initial.
    return bool(segment(language, f"{' '.join(head.split())} {following}")[-1] == following)


def _fold(word: str) -> str:
    """Lower-case a Turkish or English word for a table; "İ".lower() would be two characters."""
    return word.replace("İ", "i").lower()
