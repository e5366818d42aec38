"""Words of the backend tests: configurations, prompts, and greedy continuation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from voice_llm.backend.base import BatchEntry, Sampler
from voice_llm.backend.llama import LlamaBackend
from voice_llm.config.engine import EngineConfig, KVLayout
from voice_llm.config.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0)
PROMPT = "The capital of France is"
CONTEXT_TOKENS = 256


def engine_config(kv_layout: KVLayout = "split", *, sequences: int = 4, batch_tokens: int = 512) -> EngineConfig:
    return EngineConfig(
        sequences=sequences,
        context_per_call=CONTEXT_TOKENS,
        # One thread, so that a busy machine slows the tests down by its load and not by much more.
        threads=1,
        threads_batch=1,
        batch_tokens=batch_tokens,
        micro_batch_tokens=batch_tokens,
        gpu_layers=0,
        flash_attention="off",
        kv_layout=kv_layout,
    )


def prefill(backend: LlamaBackend, sequence_id: int, tokens: Sequence[int]) -> None:
    """Decode tokens after what the sequence holds, in as few batches as allowed, with logits after the last."""
    most = backend.info.max_batch_tokens
    for start in range(0, len(tokens), most):
        part = tokens[start : start + most]
        entry = BatchEntry(sequence_id, backend.seq_length(sequence_id), part, start + most >= len(tokens))
        backend.decode([entry])


def generate(backend: LlamaBackend, sequence_id: int, sampler: Sampler, most: int) -> list[int]:
    """Go on from the last decode, which ended with the sequence's logits as entry 0; up to an end of turn."""
    tokens: list[int] = []
    while True:
        tokens.append(backend.sample(0, sampler))
        if backend.is_end_of_turn(tokens[-1]) or len(tokens) == most:
            return tokens
        backend.decode([BatchEntry(sequence_id, backend.seq_length(sequence_id), tokens[-1:], True)])


def continuation(
    backend: LlamaBackend, prompt: str = PROMPT, most: int = 6, *, params: SamplingParams = GREEDY, sequence_id: int = 0
) -> list[int]:
    """Prefill a prompt into an emptied sequence and generate after it."""
    backend.seq_drop(sequence_id)
    prefill(backend, sequence_id, backend.tokenize(prompt, parse_special=True))
    return generate(backend, sequence_id, backend.new_sampler(params), most)


def set_logits(backend: LlamaBackend, values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """Put other logits, shape (n_vocab,), where a decode of one token has left its own as entry 0."""
    backend.seq_drop(0)
    prefill(backend, 0, [0])
    backend._logits.row(0)[:] = values


def text_of(backend: LlamaBackend, tokens: Sequence[int]) -> str:
    return b"".join(map(backend.token_bytes, tokens)).decode()


def chat(user: str) -> str:
    """A ChatML prompt that is ready for the assistant's answer."""
    return f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
