"""What of a text can be checked against facts: numbers, times, days, months and names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ...config.language import primary_language

__all__ = ["claims_of", "small"]

_TURKISH: Final = str.maketrans({"İ": "i", "I": "ı"})
_NUMBER: Final = re.compile(r"\d+(?:[.,:]\d+)*")
_THOUSANDS: Final = re.compile(r"\d{1,3}(?:[.,]\d{3})+")
_AFTERNOON: Final = re.compile(r"\b(\d{1,2})(?:[.:](\d\d))?\s*p\.?m\b", re.IGNORECASE)
_NAME: Final = re.compile(r"(?<![.!?:…\"“]\s)(?<!^)\b[A-ZÇĞİÖŞÜ][a-zçğıöşü]{2,}\b")
_WORDS: Final = {
    "en": (
        *("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
        *("january", "february", "march", "april", "may", "june", "july"),
        *("august", "september", "october", "november", "december"),
    ),
    "tr": (
        *("pazartesi", "salı", "çarşamba", "perşembe", "cuma", "cumartesi", "pazar"),
        *("ocak", "şubat", "mart", "nisan", "mayıs", "haziran", "temmuz"),
        *("ağustos", "eylül", "ekim", "kasım", "aralık"),
    ),
}


def _from_two(words: str) -> dict[str, int]:
    return {word: number for number, word in enumerate(words.split(), 2)}


_NUMBER_WORDS: Final = {
    "en": _from_two("two three four five six seven eight nine ten eleven twelve"),
    "tr": _from_two("iki üç dört beş altı yedi sekiz dokuz on"),
}


def small(text: str, language: str) -> str:
    """Return a text in small letters, as its language has them."""
    return (text.translate(_TURKISH) if primary_language(language) == "tr" else text).casefold()


def claims_of(text: str, language: str) -> frozenset[str]:
    """Return what of a text facts can bear out or not, each in one way of writing it.

    ``may`` and ``pazar`` and ``ocak`` are words as well; without a number after them, they count for nothing.
    """
    return frozenset(_claims(text, primary_language(language)))


def _claims(text: str, language: str) -> Iterator[str]:
    for hour, minute in _AFTERNOON.findall(text):
        yield _time(str(int(hour) % 12 + 12), minute or "00")
    for number in _NUMBER.findall(_AFTERNOON.sub(" ", text)):
        yield _plain_number(number)
    lowered = small(text, language)
    for word, value in _NUMBER_WORDS.get(language, {}).items():
        if re.search(rf"\b{word}\b", lowered):
            yield str(value)
    for word in _WORDS.get(language, ()):
        if re.search(rf"\b{word}(?!\w)" if language == "en" else rf"\b{word}", lowered):
            yield word
    for name in _NAME.findall(text):
        yield small(name, language)


def _plain_number(written: str) -> str:
    if _THOUSANDS.fullmatch(written):
        return re.sub(r"\D", "", written)
    parts = re.split(r"[.,:]", written)
    if len(parts) == 2 and len(parts[1]) == 2 and int(parts[0]) < 24 and int(parts[1]) < 60:
        return _time(parts[0], parts[1])
    return ".".join(part.lstrip("0") or "0" for part in parts)


def _time(hour: str, minute: str) -> str:
    return str(int(hour)) if minute == "00" else f"{int(hour)}.{int(minute)}"
