"""SpeechFilter: what is left is what a voice can speak."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.text import SpeechFilter

pytestmark = pytest.mark.unit


def spoken(*pieces: str) -> str:
    speech = SpeechFilter()
    return "".join(speech.decode(piece) for piece in pieces) + speech.flush()


@pytest.mark.parametrize(
    ("written", "heard"),
    [
        # emphasis
        ("Bu **çok önemli** bir konu.", "Bu çok önemli bir konu."),
        ("*Elbette*, __hemen__ _şimdi_ ***bak***.", "Elbette, hemen şimdi bak."),
        ("**Kasko**'nun bedeli", "Kasko'nun bedeli"),
        ("**Not:**Lütfen", "Not:Lütfen"),
        ("~~eski~~ yeni, ~5 dakika", "eski yeni, ~5 dakika"),
        ("snake_case ve __init__", "snake_case ve init"),
        ("3*4 eder 12, 5 * 3 eder 15", "3*4 eder 12, 5 * 3 eder 15"),
        ("*123# tuşlayın, *#06# de olur", "*123# tuşlayın, *#06# de olur"),
        ("info_destek@ornek.com", "info_destek@ornek.com"),
        # blocks
        ("# Başlık\nMetin", "Başlık\nMetin"),
        ("### **Your plan**\nText", "Your plan\nText"),
        ("#5 numaralı kapı, C# dili", "#5 numaralı kapı, C# dili"),
        ("> Alıntı\n> > devam", "Alıntı\ndevam"),
        ("Seçenekler:\n- bir\n* iki\n+ üç\n• dört", "Seçenekler:\nbir\niki\nüç\ndört"),
        ("1. Kimlik\n2) Ruhsat\n   - kopya", "1. Kimlik\n2) Ruhsat\nkopya"),
        ("-5 derece\n+90 532 123 45 67", "-5 derece\n+90 532 123 45 67"),
        ("Üst\n\n---\n\nAlt\n***\nSon\n___\n", "Üst\nAlt\nSon"),
        ("Başlık\n=====\nMetin", "Başlık\nMetin"),
        ("-- değil\n:) merhaba", "-- değil\n:) merhaba"),
        # code
        ("`poliçe_no` alanı", "poliçe_no alanı"),
        ("Kod:\n```python\nprint('x')\n```\nBitti.", "Kod:\nBitti."),
        ("Use ```x``` here", "Use x here"),
        ("Önce\n```\nkapanmayan", "Önce"),
        ("```\nkod\n``` Sonra\n- madde", "Sonra\nmadde"),
        ("Önce\n```\nkod\n``` sonra", "Önce\nsonra"),
        # links, images, tags
        ("Bkz. [sitemiz](https://ornek.com/a_b?x=1).", "Bkz. sitemiz."),
        ("[**kalın** bağ](u) ve ![logo](logo.png)son", "kalın bağ ve son"),
        ("[Adınız] ve [1] kalır", "[Adınız] ve [1] kalır"),
        ("Adres https://ornek.com/x_y_z olur", "Adres https://ornek.com/x_y_z olur"),
        ("<b>kalın</b> satır<br/>yeni <span class='x'>y</span>", "kalın satır\nyeni y"),
        ("2 < 3 ve <3 ve <ali@ornek.com>", "2 < 3 ve <3 ve <ali@ornek.com>"),
        ('Bakıyorum.<tool_call>\n{"name": "f"}\n</tool_call>', "Bakıyorum."),
        ('Bakıyorum.<tool_call>{"name": "f"}</tool_call>\nTamam.', "Bakıyorum.\nTamam."),
        ('<tool_call>{"name": "never closed"}', ""),
        # tables
        ("| Ad | Tutar |\n|:---|---:|\n| Kasko | 5.000 TL |\n", "Ad, Tutar\nKasko, 5.000 TL"),
        ("| a | | b |\n| - | - | - |\n| 1 | 2 | 3 |", "a, b\n1, 2, 3"),
        # emoji and symbols
        ("Harika 😊! Aile 👨‍👩‍👧‍👦 tamam 👍🏽 bayrak 🇹🇷 kalp ❤️.", "Harika! Aile tamam bayrak kalp."),
        ("1️⃣ ilk", "1 ilk"),
        ("✅ Tamam\n👉 - madde", "Tamam\nmadde"),
        ("“Olur” – 5 € → 21 °C… %20 ™", "“Olur” – 5 € → 21 °C… %20 ™"),
        # white space
        ("\n\n  Merhaba   dünya \n\n\n iki\t üç \u00a0 \n", "Merhaba dünya\niki üç"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_markup_is_not_spoken(written: str, heard: str) -> None:
    assert spoken(written) == heard
    assert spoken(*written) == heard


@pytest.mark.parametrize(
    ("written", "heard"),
    [
        ("açık **kalın", "açık kalın"),
        ("soru [bağ", "soru [bağ"),
        ("soru [bağ](http://x", "soru [bağ](http://x"),
        ("a <b", "a <b"),
        ("son!", "son!"),
        ("son *", "son"),
        ("`kod", "kod"),
    ],
)
def test_unclosed_marker_at_the_end_leaves_sensible_text(written: str, heard: str) -> None:
    assert spoken(*written) == heard


@pytest.mark.parametrize("stray", ["[", "![", "<b ", "[x](", "*", "_", "`", "|"])
def test_stray_marker_never_silences_a_reply(stray: str) -> None:
    speech = SpeechFilter()
    text = "a" + stray + "kelime " * 60
    assert len(speech.decode(text)) > 0.75 * len(text)


def test_stray_bracket_holds_back_a_bounded_label() -> None:
    speech = SpeechFilter()
    held = 0
    for count, char in enumerate("[" + "x" * 200, start=1):
        if speech.decode(char):
            held = count
            break
    assert held == 82


@pytest.mark.parametrize("text", ["Merhaba", "14:30", "a-b", "(x)", "Öz'ün", "a#b", "a > b", "5+5=10"])
def test_plain_text_is_not_held_back(text: str) -> None:
    speech = SpeechFilter()
    assert speech.decode("Tamam " + text) == "Tamam " + text


SIGNS = st.sampled_from([*"*_~`#>|-+=:[!</", "**", "```", "---", "](", ")", "\u200d", "😊", "<br>"])
WORDS = st.sampled_from(["b", "br", "<tool_call>", "</tool_call>", "a", "1", "ş", ".", " ", "  ", "\n", "\t"])
MARKUP = st.lists(SIGNS | WORDS, max_size=40).map("".join)


@given(MARKUP, st.lists(st.integers(1, 4), max_size=60))
def test_speech_does_not_depend_on_how_the_text_is_cut(text: str, cuts: list[int]) -> None:
    pieces, rest = [], text
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    assert spoken(*pieces, rest) == spoken(text) == spoken(*text)


@given(MARKUP)
def test_white_space_is_single_and_not_at_the_ends(text: str) -> None:
    heard = spoken(text)
    assert heard == heard.strip()
    assert not any(pair in heard for pair in ("  ", "\n\n", " \n", "\n ", "\t"))


@given(st.lists(st.from_regex(r"[A-Za-zçğıöşü0-9.,?']+", fullmatch=True), min_size=1).map(" ".join))
def test_plain_words_pass_unchanged(text: str) -> None:
    assert spoken(text) == text
