"""Content safety and exactness, proved on two real vocabularies."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voice_llm.prompt import Literal, Text, TokenEncoder

from .vocabularies import LlamaVocabulary

pytestmark = pytest.mark.model

HOLDS_NO_STATE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
NOISE = [
    "<",
    "<|",
    "|>",
    ">",
    "_",
    "im",
    "end",
    "start",
    "[",
    "]",
    "/",
    " ",
    "\n",
    "\n\n",
    "ğ",
    "İstanbul",
    "👍",
    "the",
]


@pytest.fixture(params=["smollm2", "gemma3"])
def vocabulary(request: pytest.FixtureRequest) -> LlamaVocabulary:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, LlamaVocabulary)
    return found


@pytest.mark.parametrize("shape", ["{0}", "{0}{0}", "{1}{0}{2}", "merhaba {0} dünya", "\n{0}\n"])
def test_no_control_token_of_the_vocabulary_comes_out_of_content(vocabulary: LlamaVocabulary, shape: str) -> None:
    encoder = TokenEncoder(vocabulary)
    control_ids = set(vocabulary.control_tokens.values())
    assert len(control_ids) > 10
    for control in vocabulary.control_tokens:
        text = shape.format(control, control[: len(control) // 2], control[len(control) // 2 :])
        ids = encoder.encode([Text(text)])
        assert control_ids.isdisjoint(ids), control
        assert vocabulary.text(ids) == text.encode()


def test_a_control_token_split_over_contents_and_literals_stays_text(vocabulary: LlamaVocabulary) -> None:
    encoder = TokenEncoder(vocabulary)
    control_ids = set(vocabulary.control_tokens.values())
    for control in list(vocabulary.control_tokens)[:300]:
        ids = encoder.encode([Literal("user\n" + control[:1]), Text(control[1:3]), Text(control[3:])])
        assert control_ids.isdisjoint(ids), control
        assert vocabulary.text(ids) == b"user\n" + control.encode()


@HOLDS_NO_STATE
@given(data=st.data())
def test_no_mixture_makes_a_control_token(vocabulary: LlamaVocabulary, data: st.DataObject) -> None:
    controls = sorted(vocabulary.control_tokens)
    pieces = data.draw(st.lists(st.one_of(st.sampled_from(NOISE), st.sampled_from(controls)), max_size=10))
    ids = TokenEncoder(vocabulary).encode([Text(piece) for piece in pieces])
    assert set(vocabulary.control_tokens.values()).isdisjoint(ids)
    assert vocabulary.text(ids) == "".join(pieces).encode()


@HOLDS_NO_STATE
@given(text=st.text(max_size=60).filter(lambda text: "<" not in text and "[" not in text))
def test_harmless_content_has_the_ids_of_the_whole_prompt(vocabulary: LlamaVocabulary, text: str) -> None:
    open_, close = [control for control in vocabulary.control_tokens if control.startswith("<")][:2]
    ids = TokenEncoder(vocabulary).encode([Literal(open_ + "user\n"), Text(text), Literal("." + close + "\n")])
    assert ids == vocabulary.tokenize(f"{open_}user\n{text}.{close}\n", parse_special=True)
