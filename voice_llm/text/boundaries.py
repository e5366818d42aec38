"""Where speech may pause: what kind of boundary a gap between two words is.

``sentencex`` decides on sentences. The tables and rules around it are for what it gets wrong on the phone: Turkish
ordinals and titles, addresses, words such as "no." and "ID.", brackets and ellipses.
"""

from __future__ import annotations

import logging
import re
from enum import IntEnum

from sentencex import segment

logger = logging.getLogger(__name__)


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
# Abbreviations to the segmenter, but words that end sentences on the phone.
_WORDS_AFTER_ALL = _words("no ok me id may al ver")
_TURKISH_ORDINAL = re.compile(r"\d{1,3}")
_AFTER_ORDINAL = _words(
    "ocak şubat mart nisan mayıs haziran temmuz ağustos eylül ekim kasım aralık"
    " gün hafta ay yıl dönem kat daire blok cadde sokak etap kısım levent sınıf derece kademe bölge bölüm madde fıkra"
    " seans noter noterlik icra asliye sulh ağır aile iş tüketici"
)

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
    if not head:
        return Boundary.SPACE
    following = text[start]
    mark = head[-1]
    is_closed = len(head) < end
    if mark in ".!?…。！？؟।":
        if mark == "." and head[-2:-1] != ".":
            return _full_stop(head, text, start, language, final=final)
        continues = following.islower() and (is_closed or mark in ".…")
        return Boundary.CLAUSE if continues else Boundary.SENTENCE
    before = head[:-1].rstrip()[-1:]
    if mark == ":":
        return Boundary.NONE if following.isdigit() else Boundary.CLAUSE  # a number stays with its label
    if mark in ",;—" or (mark in "-–" and head[-2:-1].isspace()):
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
    match = _WORD.match(text, start)
    next_word = match[0] if match else following
    is_complete = final or start + len(next_word) < len(text)
    if language == "tr" and _TURKISH_ORDINAL.fullmatch(last):
        continues = _follows_ordinal(_fold(next_word), is_complete=is_complete)
        if continues is not False:
            return Boundary.NONE if continues else None
    if key in _WORDS_AFTER_ALL or _is_sentence(head, following, language):
        return Boundary.SENTENCE
    if not is_complete:
        return None  # after an abbreviation the segmenter goes by the word: "3 p.m. Then", but "3 p.m. Monday"
    return Boundary.SENTENCE if _is_sentence(head, next_word, language) else Boundary.NONE


def _follows_ordinal(word: str, *, is_complete: bool) -> bool | None:
    """Whether a word continues the sentence after "3." despite its capital; None where its rest decides."""
    if not is_complete and any(known.startswith(word) for known in _AFTER_ORDINAL):
        return None
    return word in _AFTER_ORDINAL or any(len(known) > 3 and word.startswith(known) for known in _AFTER_ORDINAL)


def _is_sentence(head: str, next_word: str, language: str) -> bool:
    # Plain spaces only: sentencex panics on white space such as U+0085 after an initial.
    try:
        return bool(segment(language, f"{' '.join(head.split())} {next_word}")[-1] == next_word)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        # A panic of its Rust code is no `Exception`: it would end the engine's thread, and with it every call.
        logger.exception("the sentence segmenter failed; the sentence goes on")
        return False


def _fold(word: str) -> str:
    """Lower-case a Turkish or English word for a table; "İ".lower() would be two characters."""
    return word.replace("İ", "i").lower()
