"""The sampling path draws what llama.cpp's own chain draws, and never gives the GIL away."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voice_llm.backend.llama import LlamaBackend, LlamaModel
from voice_llm.config.sampling import SamplingParams

from .support import PROMPT, prefill, set_logits

pytestmark = pytest.mark.model

ANYTHING = r"root ::= [^\x00]*"
DIGITS = "root ::= [0-9]+"
SHAPES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "default": {},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.2},
    "greedy with penalties": {"temperature": 0, "repetition_penalty": 1.3},
    "nothing filtered": {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    "min-p alone": {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.05},
    "top-p alone": {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "min_p": 0.0},
    "wide top-k": {"temperature": 2.0, "top_k": 300, "top_p": 1.0, "min_p": 0.0},
}


def params(shape: str, **more: Any) -> SamplingParams:
    return SamplingParams(**{"seed": 3, **SHAPES[shape], **more})


@pytest.fixture(scope="module")
def not_plain(model: LlamaModel) -> list[int]:
    """Tokens that a grammar may refuse whatever it says: control tokens, and pieces of longer characters."""
    return [
        t
        for t in range(model.n_vocab)
        if not model.token_bytes(t) or not all(0 < b < 128 for b in model.token_bytes(t))
    ]


def drawn(backend: LlamaBackend, wanted: SamplingParams, count: int = 20) -> list[int]:
    sampler = backend.new_sampler(wanted)
    tokens = [backend.sample(0, sampler) for _ in range(count)]
    sampler.close()
    return tokens


@st.composite
def logits(draw: st.DrawFn, n_vocab: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Random rows: smooth, with many equal values, and with most of the vocabulary ruled out."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = chance.normal(0, draw(st.sampled_from([0.5, 3.0])), n_vocab)
    if draw(st.booleans()):
        values = np.round(values, draw(st.integers(0, 1)))
    if draw(st.booleans()):
        values[chance.random(n_vocab) < draw(st.sampled_from([0.5, 0.999]))] = -np.inf
    values[chance.integers(n_vocab)] = 4.0
    return values.astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_array_of_a_grammar_draws_what_llama_cpp_draws_without_one(
    backend: LlamaBackend, not_plain: list[int], shape: str, data: st.DataObject
) -> None:
    """A grammar that allows all text changes no draw: seed, order of equals and what is ruled out are the same."""
    values = data.draw(logits(backend.model.n_vocab))
    values[not_plain] = -np.inf
    set_logits(backend, values)
    assert drawn(backend, params(shape, grammar=ANYTHING)) == drawn(backend, params(shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_refused_draw_is_made_again_among_what_is_allowed(backend: LlamaBackend, shape: str) -> None:
    digits = [backend.tokenize(str(digit))[-1] for digit in range(10)]
    values = np.random.default_rng(5).normal(0, 1, backend.model.n_vocab).astype(np.float32)
    values[digits[7]] = 9.0
    values[backend.tokenize("word")[-1]] = 30.0
    set_logits(backend, values)
    texts = {backend.token_bytes(token) for token in drawn(backend, params(shape, grammar=DIGITS), 5)}
    assert all(text.isdigit() for text in texts)
    assert shape != "greedy" or texts == {b"7"}


@pytest.mark.parametrize("grammar", [None, ANYTHING, DIGITS], ids=["free", "allowed", "refused"])
@pytest.mark.parametrize("shape", ["greedy", "default", "penalties"])
def test_drawing_never_lets_another_thread_in(backend: LlamaBackend, shape: str, grammar: str | None) -> None:
    prefill(backend, 0, backend.tokenize(PROMPT))
    sampler = backend.new_sampler(params(shape, grammar=grammar))
    backend.sample(0, sampler)
    with _bystander() as turns:
        before = len(turns)
        for _ in range(200):
            backend.sample(0, sampler)
        assert len(turns) == before


@contextmanager
def _bystander() -> Iterator[list[None]]:
    """Run a thread that takes the GIL as soon as it is given away, but is never handed it for waiting long."""
    turns: list[None] = []
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            turns.append(None)
            time.sleep(0)

    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        while not turns:
            time.sleep(0.001)
        yield turns
    finally:
        over.set()
        sys.setswitchinterval(usual_s)
        thread.join()
