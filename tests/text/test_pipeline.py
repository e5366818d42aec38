"""TextPipeline: token bytes in, speech out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.text import TextOutput, TextPipeline

pytestmark = pytest.mark.unit


def run(data: bytes, cuts: list[int] | None = None, **options: Any) -> tuple[TextOutput, int]:
    """Feed a reply in pieces of the given sizes; returns its outputs put together and the visible characters."""
    pipeline = TextPipeline(**options)
    outputs = []
    for cut in cuts if cuts is not None else [1] * len(data):
        outputs.append(pipeline.decode(data[:cut]))
        data = data[cut:]
    outputs += [pipeline.decode(data), pipeline.flush()]
    text, thought = "".join(o.text for o in outputs), "".join(o.thought for o in outputs)
    chunks = tuple(chunk for o in outputs for chunk in o.chunks)
    assert "".join(chunks) == text
    return TextOutput(text, chunks, thought, outputs[-1].stopped), pipeline.emitted_visible_chars


QWEN_REPLY = """<think>
The caller asks for options, so I list two.
</think>

Tabii! İşte **seçenekleriniz**:

1. **Kasko** – yıllık 12.500 TL, *taksit* var
2. **Trafik** – bkz. [sitemiz](https://ornek.com/a_b)

| Plan | Tutar |
|------|------:|
| Mini | 1.500 TL |

### Not
- Dr. Öz sizi arayacak 😊!
<tool_call>
{"name": "transfer", "arguments": {"to": "sales"}}
</tool_call>"""


def test_markdown_reply_becomes_speech_line_by_line() -> None:
    output, visible = run(QWEN_REPLY.encode(), language="tr")
    assert output.chunks == (
        "Tabii! ",
        "İşte seçenekleriniz:\n",
        "1. Kasko – yıllık 12.500 TL, taksit var\n",
        "2. Trafik – bkz. sitemiz\n",
        "Plan, Tutar\n",
        "Mini, 1.500 TL\n",
        "Not\n",
        "Dr. Öz sizi arayacak!",
    )
    assert output.thought == "\nThe caller asks for options, so I list two.\n"
    assert visible == len("".join(output.text.split()))


def test_english_reply_as_a_small_model_writes_it() -> None:
    reply = (
        b"**Claims**\n\nTo file a claim, please have these ready:\n\n* Your policy no. 4411\n* Photos\n\nThank you! "
    )
    output, _ = run(reply)
    assert output.chunks == (
        "Claims\n",
        "To file a claim, please have these ready:\n",
        "Your policy no. 4411\n",
        "Photos\n",
        "Thank you!",
    )


def test_screen_text_keeps_its_markup_but_not_its_thoughts() -> None:
    output, _ = run(b"<think>hm</think>\n\n**Bold** `x`\n\n- item 1  ", speech=False)
    assert output.text == "**Bold** `x`\n\n- item 1  "
    assert output.thought == "hm"


def test_thought_opened_by_the_prompt_is_not_spoken() -> None:
    output, _ = run(b"let me see</think>Hello.", inside_thought=True)
    assert (output.text, output.thought) == ("Hello.", "let me see")


def test_first_chunk_comes_before_the_reply_ends() -> None:
    pipeline = TextPipeline(language="tr")
    tokens = ["Mer", "haba", " Ayşe", " Hanım", ",", " size"]
    outputs = [pipeline.decode(token.encode()) for token in tokens]
    assert [output.text for output in outputs] == tokens
    assert [output.chunks for output in outputs] == [(), (), (), (), (), ("Merhaba Ayşe Hanım, ",)]


def test_stop_string_ends_the_reply_and_flush_gives_the_last_chunk() -> None:
    pipeline = TextPipeline(stop=["User:", "</s>"])
    assert pipeline.decode(b"Fine. Go on.\nUs").text == "Fine. Go on."
    stopped = pipeline.decode(b"er: and")
    assert (stopped.text, stopped.stopped) == ("", True)
    assert pipeline.decode(b"more") == TextOutput("", stopped=True)
    assert pipeline.flush() == TextOutput("", ("Go on.",), stopped=True)


def test_held_back_text_comes_out_at_the_end() -> None:
    pipeline = TextPipeline(stop=["User:"])
    pipeline.decode(b"See [this and the Us")
    output = pipeline.flush()
    assert output.text.endswith("[this and the Us")
    assert not output.stopped
    assert pipeline.flush() == TextOutput("")


def test_beginning_of_a_marker_at_the_end_is_text() -> None:
    assert run(b"1 <thin")[0].text == "1 <thin"
    assert run(b"1 <thin", speech=False)[0].text == "1 <thin"


def test_language_decides_on_sentence_ends() -> None:
    reply = "Odanız 3. Kat'ta olacak. Tamam mı?".encode()
    assert run(reply, language="tr")[0].chunks == ("Odanız 3. Kat'ta olacak. ", "Tamam mı?")


def test_character_cut_at_the_end_is_dropped() -> None:
    output, _ = run("Olur ş".encode()[:-1])
    assert output.text == "Olur"


def test_reply_without_anything_speakable_is_silent() -> None:
    output, visible = run("<think>a</think>\n😊\n---\n```\ncode\n```\n".encode())
    assert (output.text, output.chunks, visible) == ("", (), 0)


def test_visible_characters_are_counted_as_they_are_emitted() -> None:
    pipeline = TextPipeline()
    pipeline.decode(b"**Hi** there")
    assert pipeline.emitted_visible_chars == 7


def test_output_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TextOutput("a").text = "b"  # type: ignore[misc]


WORDS = st.sampled_from(
    ["Merhaba", " Dr. ", "Öz. ", "1.500 ", "35. ", "Tem", "!", "? ", ", ", "User:", "Us", "😊", "x "]
)
MARKUP = st.sampled_from(["**", "*", "_", "[a](b)", "[", "<", "\n", "- ", "# ", "| ", "```"])
TAGS = st.sampled_from(["<think>", "</think>", "<tool_call>", "</tool_call>"])
REPLIES = st.lists(WORDS | MARKUP | TAGS, max_size=30).map("".join)


@given(REPLIES, st.lists(st.integers(1, 12), max_size=30), st.booleans(), st.booleans())
def test_reply_does_not_depend_on_how_its_bytes_are_cut(
    reply: str, cuts: list[int], speech: bool, inside_thought: bool
) -> None:
    options: dict[str, Any] = {"stop": ["User:", "rx"], "language": "tr"}
    options |= {"speech": speech, "inside_thought": inside_thought}
    whole = run(reply.encode(), [], **options)
    assert run(reply.encode(), cuts, **options) == whole == run(reply.encode(), **options)
