from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.errors import InvalidRequestError
from voice_llm.prompt import Literal, Sampled, Text, TokenEncoder
from voice_llm.prompt.tokens import Piece

from .vocabularies import CHATML, ByteTokenizer

pytestmark = pytest.mark.unit

CONTROLS = (*CHATML, "<tool_call>", "<|im", "[INST]", "<start>", "<start>s")


def test_only_literals_make_control_tokens() -> None:
    tokenizer = ByteTokenizer()
    ids = TokenEncoder(tokenizer).encode(
        [Literal("<|im_start|>user\n"), Text("say <|im_end|> now"), Literal("<|im_end|>\n")]
    )
    controls = [token for token in ids if token >= 256]
    assert controls == [tokenizer.control_tokens["<|im_start|>"], tokenizer.control_tokens["<|im_end|>"]]
    assert tokenizer.show(ids) == "<|im_start|>user\nsay <|im_end|> now<|im_end|>\n"


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("shape", ["{0}", "{0}{0}", "<|im_{0}end|>", "a {0} ğ", "<{0}"])
def test_content_that_looks_like_a_marker_stays_text(control: str, shape: str) -> None:
    tokenizer = ByteTokenizer(CONTROLS, user_defined=CONTROLS)
    text = shape.format(control)
    ids = TokenEncoder(tokenizer).encode([Text(text)])
    assert max(ids) < 256
    assert tokenizer.show(ids) == text


def test_a_marker_that_arises_between_pieces_stays_text() -> None:
    tokenizer = ByteTokenizer(user_defined=CHATML)
    ids = TokenEncoder(tokenizer).encode([Literal("x<|im"), Text("_en"), Text("d|>")])
    assert max(ids) < 256
    assert tokenizer.show(ids) == "x<|im_end|>"


@given(st.lists(st.sampled_from([*CONTROLS, *"<|>_ imendğ\n"]).map(Text), max_size=12))
def test_no_mixture_of_contents_makes_a_control_token(contents: list[Text]) -> None:
    tokenizer = ByteTokenizer(CONTROLS, user_defined=CONTROLS)
    ids = TokenEncoder(tokenizer).encode(contents)
    assert all(token < 256 for token in ids)
    assert tokenizer.show(ids) == "".join(content.text for content in contents)


def test_a_control_token_that_cannot_be_cut_is_refused() -> None:
    encoder = TokenEncoder(ByteTokenizer(["§"], user_defined=["§"]))
    with pytest.raises(InvalidRequestError, match="control token"):
        encoder.encode([Text("a § b")])


def test_literal_and_content_are_tokenized_as_one_text() -> None:
    tokenizer = ByteTokenizer()
    encoder = TokenEncoder(tokenizer)
    tokenizer.tokenized.clear()
    encoder.encode([Literal("<|im_start|>user\n"), Text("Merhaba"), Literal(" !<|im_end|>")])
    assert "user\nMerhaba !" in tokenizer.tokenized


def test_sampled_tokens_stand_as_they_are() -> None:
    ids = TokenEncoder(ByteTokenizer()).encode([Literal("a"), Sampled((7, 300)), Text("b")])
    assert ids == [97, 7, 300, 98]


def test_a_fragment_is_tokenized_once() -> None:
    tokenizer = ByteTokenizer()
    encoder = TokenEncoder(tokenizer)
    turn: list[Piece] = [Literal("<|im_start|>"), Text("a long context"), Literal("<|im_end|>")]
    first = encoder.encode(turn)
    tokenizer.tokenized.clear()
    assert encoder.encode(turn) == first
    assert tokenizer.tokenized == []


def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    tokenizer = ByteTokenizer()
    encoder = TokenEncoder(tokenizer, cache_chars=10)
    for text in ("aaaa", "bbbb", "aaaa", "cccc", "way too long to keep"):
        encoder.encode([Text(text)])
    tokenizer.tokenized.clear()
    for text in ("aaaa", "cccc", "bbbb", "way too long to keep"):
        encoder.encode([Text(text)])
    assert tokenizer.tokenized == ["bbbb", "way too long to keep"]


def test_a_space_prefix_is_put_where_llama_cpp_puts_it_only() -> None:
    tokenizer = ByteTokenizer(user_defined=CHATML, space_prefix=True)
    encoder = TokenEncoder(tokenizer)
    ids = encoder.encode([Literal("hi<|im_end|>"), Text("a<|im_end|>b"), Literal("<|im_end|>"), Text("c")])
    assert tokenizer.show(ids) == " hi<|im_end|> a<|im_end|>b<|im_end|> c"
    assert encoder.encode([Literal("x"), Sampled((65,)), Text("b")]) == [32, 120, 65, 98]
    assert encoder.encode([Literal("x"), Sampled((65,)), Text("b"), Literal("<|im_end|>")])[2:4] == [65, 98]


def test_white_space_that_a_control_token_swallows_is_left_out() -> None:
    tokenizer = ByteTokenizer(["<|end|>", "<|user|>"], strips=["<|end|>"])
    prompt = "hi \n<|end|>\n <|user|>\nhey<|end|>\n"
    ids = TokenEncoder(tokenizer).encode([Literal(prompt)])
    assert ids == tokenizer.tokenize(prompt, parse_special=True)
    assert tokenizer.show(ids) == "hi<|end|><|user|>\nhey<|end|>"
