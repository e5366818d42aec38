"""SentenceChunker: chunks sound right and come as soon as they are certain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.errors import ConfigError
from voice_llm.text import SentenceChunker

pytestmark = pytest.mark.unit


def chunks_of(text: str, language: str = "en", **limits: int | None) -> list[str]:
    chunker = SentenceChunker(language, **limits)  # type: ignore[arg-type]
    chunks = chunker.decode(text) + chunker.flush()
    chunker = SentenceChunker(language, **limits)  # type: ignore[arg-type]
    assert [chunk for char in text for chunk in chunker.decode(char)] + chunker.flush() == chunks
    return chunks


@pytest.mark.parametrize(
    ("language", "marked"),
    [
        # insurance
        ("tr", "Merhaba Ayşe Hanım, |ben Ela. |Kasko poliçeniz 12.03.2025 tarihinde bitiyor. |Yenileyelim mi?"),
        ("tr", "Yıllık prim 12.500,75 TL, |peşin ödemede %10 indirim var. |Ödemeyi 15. Ocak'a kadar yapabilirsiniz."),
        ("tr", "Örnek Sigorta A.Ş. Genel Müdürlüğü'ne, |yani Barış Cad. No: 5 adresine gönderin. |Teşekkürler."),
        ("en", "Your policy no. 5567 is active. |The deductible is $1,500.50 per claim. |Anything else?"),
        # clinic
        ("tr", "Prof. Dr. Mehmet Öz 3. katta, |Uzm. Dr. Ali Kaya 2. katta. |Saat 14:30'da bekliyoruz."),
        ("tr", "İlacı 3.5 mg alın. |29. gün kontrole gelin. |Geçmiş olsun!"),
        ("en", "Dr. Smith can see you at 3 p.m. on Monday. |Please bring your I.D. card, e.g. a passport."),
        ("en", "Come at 10 a.m. Tuesday. |St. Mary's Hospital is at 12 Oak Ave. near the park."),
        # bank
        ("tr", "IBAN'ınız TR12 0006 2000 0001 2345 6789 01. |Şubeniz Levent'te. |Tel. 0850 123 45 67."),
        ("tr", '"Olur." dedi ve onayladı. |"Emin misiniz?" diye sordu.'),
        ("en", "No. |I can't share that. |Write to info@bank.example or see www.bank.example. |Bye."),
        # shapes
        ("tr", "Gerekenler:\n|1. Kimlik\n|2. Ruhsat\n|Tamam mı?"),
        ("tr", "Bir saniye... |Bakıyorum… |Evet?! |Olur."),
        ("tr", "Merhaba benim adım Ela"),
        ("en", "Wait... let me check that (one moment). |OK!"),
        ("en", "He said “Sure.” |Then he left."),
        ("en", "Ok. :)"),
        ("en", "... well"),
        ("en", "I can help you with that—|just a moment."),
        ("zh", "你好。|请稍等。"),
    ],
)
def test_reply_is_cut_where_a_speaker_would_pause(language: str, marked: str) -> None:
    assert chunks_of(marked.replace("|", ""), language) == marked.split("|")


def arrivals(text: str, language: str) -> list[tuple[str, str]]:
    """Each chunk but the last, with the text that had been fed when it came."""
    chunker = SentenceChunker(language)
    return [(text[: end + 1], chunk) for end, char in enumerate(text) for chunk in chunker.decode(char)]


@pytest.mark.parametrize(
    ("language", "text", "fed", "chunk"),
    [
        ("en", "Hello there. How are you?", "Hello there. H", "Hello there. "),
        ("en", "Sure! let me look.", "Sure! l", "Sure! "),
        ("en", 'Say "yes." Then wait.', 'Say "yes." T', 'Say "yes." '),
        ("en", "Done. (Really.)", "Done. (R", "Done. "),
        ("en", "That costs a lot, about five.", "That costs a lot, a", "That costs a lot, "),
        ("en", "One\n\n- two", "One\n\n- t", "One\n\n"),
        ("tr", "Merhaba Ayşe Hanım, ben Ela.", "Merhaba Ayşe Hanım, b", "Merhaba Ayşe Hanım, "),
        ("en", "Come at 3 p.m. Then wait.", "Come at 3 p.m. Then ", "Come at 3 p.m. "),
        ("tr", "Tutar 1.500 TL. Ödeyin.", "Tutar 1.500 TL. Ö", "Tutar 1.500 TL. "),
        ("tr", "Dr. Öz geldi. Buyurun.", "Dr. Öz geldi. B", "Dr. Öz geldi. "),
        ("tr", "Yaşınız 35. Buyurun.", "Yaşınız 35. Bu", "Yaşınız 35. "),
        ("tr", "Yaşınız 35. Oldu.", "Yaşınız 35. Ol", "Yaşınız 35. "),
    ],
)
def test_chunk_comes_with_the_first_letter_that_makes_it_certain(
    language: str, text: str, fed: str, chunk: str
) -> None:
    assert arrivals(text, language)[0] == (fed, chunk)


def test_only_the_first_chunk_may_end_at_a_clause() -> None:
    text = "Thank you for calling, how can I help you today, or may I connect you, sir? Yes, of course, sir, today."
    assert chunks_of(text) == [
        "Thank you for calling, ",
        "how can I help you today, or may I connect you, sir? ",
        "Yes, of course, sir, today.",
    ]


def test_first_clause_must_be_long_enough_to_sound_right() -> None:
    assert chunks_of("Yes, of course, madam.") == ["Yes, of course, madam."]
    assert chunks_of("Yes, of course, madam.", first_clause_min_chars=4) == ["Yes, ", "of course, madam."]


def test_first_chunk_is_like_any_other_where_clauses_are_not_spoken() -> None:
    text = "Thank you for calling, how can I help you today? Yes, sir."
    assert chunks_of(text, first_clause_min_chars=None) == [
        "Thank you for calling, how can I help you today? ",
        "Yes, sir.",
    ]
    assert chunks_of("First one, then two, and three.", first_clause_min_chars=None, soft_limit_chars=18) == [
        "First one, then two, ",
        "and three.",
    ]


def test_long_sentence_ends_at_a_clause_after_the_soft_limit() -> None:
    text = "Go on. First one, then two, then three, and four."
    assert chunks_of(text, soft_limit_chars=18) == ["Go on. ", "First one, then two, ", "then three, and four."]


def test_longer_sentence_ends_at_a_space_after_the_hard_limit() -> None:
    text = "aaaa bbbb cccc dddd eeee 0532 123 45 67 ffff"
    assert chunks_of(text, soft_limit_chars=8, hard_limit_chars=8) == [
        "aaaa bbbb ",
        "cccc dddd ",
        "eeee 0532 123 45 67 ",
        "ffff",
    ]


def test_limits_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError):
        SentenceChunker(soft_limit_chars=10, hard_limit_chars=9)
    with pytest.raises(ConfigError):
        SentenceChunker(first_clause_min_chars=0)


@pytest.mark.parametrize("language", ["tr", "tr-TR", "TR_tr"])
def test_region_of_a_language_does_not_matter(language: str) -> None:
    assert chunks_of("Yarın 3. Noterliğe gelin. Tamam mı?", language) == ["Yarın 3. Noterliğe gelin. ", "Tamam mı?"]


def test_flush_ends_the_reply_once() -> None:
    chunker = SentenceChunker()
    assert chunker.flush() == []
    assert chunker.decode("Bye") == []
    assert chunker.flush() == ["Bye"]
    assert chunker.flush() == []


WORDS = st.sampled_from(["Evet", "tamam", "Dr.", "35.", "Tem", "muz", "1.500", "p.m.", "A.", "No", "你。", "ş", "7"])
MARKS = st.sampled_from(["…", "...", "!", "?", ".", ",", ":", ")", "(", '"', "—", " - ", "😊", "\n", "\x85"])
PIECES = WORDS | MARKS | st.just(" ")


@given(
    text=st.lists(PIECES, max_size=60).map("".join),
    cuts=st.lists(st.integers(1, 9), max_size=60),
    language=st.sampled_from(["tr", "en"]),
)
def test_chunks_are_the_text_and_do_not_depend_on_how_it_is_cut(text: str, cuts: list[int], language: str) -> None:
    limits = {"first_clause_min_chars": 6, "soft_limit_chars": 20, "hard_limit_chars": 30}
    whole = chunks_of(text, language, **limits)
    assert "".join(whole) == text
    chunker, pieces, rest = SentenceChunker(language, **limits), [], text
    for cut in cuts:
        pieces += chunker.decode(rest[:cut])
        rest = rest[cut:]
    assert pieces + chunker.decode(rest) + chunker.flush() == whole
    assert all(any(char.isalnum() for char in chunk) for chunk in whole) or len(whole) <= 1
    assert not any(chunk[0].isspace() for chunk in whole[1:])


@given(st.text(max_size=60))
def test_any_text_at_all_is_cut_without_loss(text: str) -> None:
    assert "".join(chunks_of(text, "tr", soft_limit_chars=5, hard_limit_chars=9)) == text
