"""boundary_at: how good a place for a pause a gap is."""

from __future__ import annotations

import pytest

from voice_llm.text import SentenceChunker, boundaries
from voice_llm.text.boundaries import Boundary, boundary_at

pytestmark = pytest.mark.unit


def boundary(text: str, language: str, *, final: bool = False) -> Boundary | None:
    """Classify the gap that ``|`` marks."""
    head, following = text.split("|")
    whole = head + following
    start = next(i for i in range(len(head), len(whole)) if whole[i].isalnum())
    return boundary_at(whole, len(head.rstrip()), start, language, final=final)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Tamam. |H", "tr"),
        ("Hello there. |H", "en"),
        ("Tutar 250 TL'dir. |3", "tr"),
        ("Olur mu? |e", "tr"),
        ("Evet?! |T", "tr"),
        ("Bir saniye... |B", "tr"),
        ("Hoş geldiniz… |B", "tr"),
        ('"Olur." |T', "tr"),
        ("(Evet.) |T", "tr"),
        ("Tamam. |“T", "en"),
        ("Kodunuz 4321. |L", "tr"),
        ("Elma, armut vb. |B", "tr"),
        ("Saat 14.30. |T", "tr"),
        ("No. |I", "en"),
        ("Please read me your ID. |Y", "en"),
        ("Your visit is on 12 May. |P", "en"),
        ("Tabii, ok. |B", "tr"),
        ("Come at 3 p.m. |Then ", "en"),
        ("It's 5. |Y", "en"),
        ("你好。|我", "zh"),
    ],
)
def test_sentence_ends(text: str, language: str) -> None:
    assert boundary(text, language) is Boundary.SENTENCE


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Dr. |M", "tr"),
        ("Prof. Dr. |A", "tr"),
        ("Sayın Av. |A", "tr"),
        ("DOÇ. |A", "tr"),
        ("M. |Kemal", "tr"),
        ("T.C. |Kimlik", "tr"),
        ("II. |A", "tr"),
        ("Örnek Sigorta A.Ş. |G", "tr"),
        ("Lale Sk. |1", "tr"),
        ("Barış Cad. |N", "tr"),
        ("Kapı No. |5", "tr"),
        ("Kapı No: |5", "tr"),
        ("Poliçeniz 29. |g", "tr"),
        ("Odanız 3. |kat", "tr"),
        ("Vade 15. |Ocak'", "tr"),
        ("Dosyanız 3. |İcra", "tr"),
        ("Elma, armut vb. |ü", "tr"),
        ("1. |K", "tr"),
        ("Gerekenler: 1. |K", "tr"),
        ("Kimlik, 2) |R", "tr"),
        ("Acct. |1", "en"),
        ("Come at 3 p.m. |Monday", "en"),
        ("It is approx. |5", "en"),
        ("e.g. |t", "en"),
        ("Mr. J. |Ross", "en"),
        ("St. |M", "en"),
        ("0532, |1", "tr"),
        ("0532 |1", "tr"),
        ("10 - |1", "tr"),
    ],
)
def test_no_pause_inside_names_numbers_and_abbreviations(text: str, language: str) -> None:
    assert boundary(text, language, final=True) is Boundary.NONE


@pytest.mark.parametrize(
    "text",
    [
        "Evet, |a",
        "Evet; |a",
        "Şöyle: |a",
        "Evet - |a",
        "Evet – |a",
        "Evet—|a",
        "(evet) |a",
        "Bekleyin... |b",
        '"Olur!" |d',
    ],
)
def test_clause_ends(text: str) -> None:
    assert boundary(text, "tr") is Boundary.CLAUSE


def test_sentence_in_lower_case_counts_as_a_clause() -> None:
    assert boundary("tamam. |hemen", "tr") is Boundary.CLAUSE


@pytest.mark.parametrize("text", ["Evet |a", "e-posta |a", '"evet" |a', '" |a'])
def test_other_gaps_are_spaces(text: str) -> None:
    assert boundary(text, "tr") is Boundary.SPACE


def test_capital_after_an_ordinal_is_undecided_until_its_word_is_known() -> None:
    assert boundary("Yaşınız 35. |T", "tr") is None
    assert boundary("Yaşınız 35. |Tem", "tr") is None
    assert boundary("Yaşınız 35. |Temmuz", "tr") is None
    assert boundary("Yaşınız 35. |Temmuz ", "tr") is Boundary.NONE
    assert boundary("Yaşınız 35. |Tam", "tr") is Boundary.SENTENCE
    assert boundary("Yaşınız 35. |T", "tr", final=True) is Boundary.SENTENCE


def test_capital_after_an_abbreviation_is_undecided_until_its_word_is_known() -> None:
    assert boundary("Come at 3 p.m. |T", "en") is None
    assert boundary("Come at 3 p.m. |Then", "en") is None
    assert boundary("Come at 3 p.m. |Then ", "en") is Boundary.SENTENCE
    assert boundary("Come at 3 p.m. |Tuesday ", "en") is Boundary.NONE


@pytest.mark.parametrize("space", ["\x85", "\u2028", "\u3000", "\u00a0"])
def test_unusual_white_space_does_not_reach_the_segmenter(space: str) -> None:
    """Sentencex panics on it, which no ``except Exception`` would stop from ending the engine's thread."""
    assert boundary(f"plan A{space}. |B", "en", final=True) is not None
    assert boundary(f"Tamam{space}A. |B", "en", final=True) is not None


def test_a_segmenter_that_panics_ends_no_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """A panic of its native code is no Exception; it must cost one boundary, not the engine's thread."""

    class Panic(BaseException):
        pass

    def panics(language: str, text: str) -> list[str]:
        raise Panic("slice index starts at 3 but ends at 2")

    monkeypatch.setattr(boundaries, "segment", panics)
    chunker = SentenceChunker("en")
    text = "The first sentence is here. The second one follows. And the third."
    assert "".join([*chunker.decode(text), *chunker.flush()]) == text
