"""Proofs about equality: calls beside each other, and reused caches, change nothing in what is said."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from voice_llm import Engine
from voice_llm.backend import BatchEntry
from voice_llm.backend.llama import LlamaBackend, LlamaModel

from .common import Proof, engine_config, model_path, read, running_engine

_CALLS = 16
_TOKENS = 40
_QUESTIONS = (
    "And what is my name?",
    "Which colour was it?",
    "Thank you. Is that all?",
    "Who are you?",
    "Can you say that again?",
    "Goodbye.",
)
_NAMES = (
    *("Ada", "Bora", "Cem", "Deniz", "Elif", "Filiz", "Gül", "Hakan"),
    *("Işıl", "Jale", "Kaan", "Lale", "Mert", "Nil", "Oya", "Pınar"),
)


async def calls_beside_each_other() -> list[Proof]:
    """Sixteen calls at once, each with a fact of its own, against the same calls one by one."""
    async with running_engine(engine_config(sequences=_CALLS, saved_state_bytes=0)) as engine:
        alone = [await _ask(engine, i) for i in range(_CALLS)]
        together = await asyncio.gather(*(_ask(engine, i) for i in range(_CALLS)))
    differing = [i for i in range(_CALLS) if alone[i][1] != together[i][1]]
    gaps = [_logit_gap(alone[i], together[i]) for i in differing]
    close = all(gap["gap"] < 1e-2 for gap in gaps)
    named = sum(_number(i) in text for i, (text, _, _) in enumerate(together))
    return [
        Proof(
            "calls_beside_each_other",
            "16 greedy calls at once: at least 15 say what they say alone; where one differs, the two tokens' logits "
            "are closer than 0.01",
            len(differing) <= 1 and close,
            {"same": _CALLS - len(differing), "of": _CALLS, "own_fact_repeated": named, "differences": gaps},
        )
    ]


async def _ask(engine: Engine, index: int) -> tuple[str, tuple[int, ...], list[int]]:
    async with engine.open_call(tenant=f"tenant-{index}") as call:
        text, _ = await read(call.generate(_messages(index), temperature=0.0, max_tokens=_TOKENS))
        turn = call._turns[-1]
        return text, tuple(turn.generated), list(_prompt(engine, index))


def _prompt(engine: Engine, index: int) -> list[int]:
    formatted = engine._formatter.format(_messages(index), context_tokens=1024, reserve_tokens=_TOKENS)
    return list(formatted.tokens)


def _logit_gap(alone: Any, together: Any) -> dict[str, Any]:
    """Compute the logits of the two tokens where the replies part, from the same tokens before."""
    _, mine, prompt = alone
    _, theirs, _ = together
    at = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b)
    backend = LlamaBackend(LlamaModel(model_path()), engine_config(sequences=1))
    try:
        backend.decode([BatchEntry(0, 0, [*prompt, *mine[:at]], True)])
        logits = backend.logits(0)
    finally:
        backend.close()
    gap = float(np.abs(logits[mine[at]] - logits[theirs[at]]))
    return {"token": at, "alone": int(mine[at]), "together": int(theirs[at]), "gap": gap}


async def reused_caches() -> list[Proof]:
    """A call of six turns with a reused cache, against a fresh prefill of the same tokens at each turn."""
    turns: list[tuple[list[int], list[int]]] = []
    cached_tokens = 0
    async with running_engine(engine_config(sequences=2)) as engine, engine.open_call() as call:
        history = _messages(3)
        for question in _QUESTIONS:
            text, end = await read(call.generate(history, temperature=0.0, max_tokens=_TOKENS))
            held = list(call._live.sequence.tokens) if call._live.sequence else []
            generated = list(call._turns[-1].generated)
            turns.append((held[: len(held) + 1 - len(generated)], generated))
            cached_tokens += end.usage.cached_tokens
            history = [*history, {"role": "assistant", "content": text}, {"role": "user", "content": question}]
    differences = [
        d for prompt, generated in turns if (d := await asyncio.to_thread(_against_fresh, prompt, generated))
    ]
    return [
        Proof(
            "reused_cache",
            "replies on a reused cache are those of a fresh prefill of the same tokens (or the two logits are closer "
            "than 0.01)",
            all(d["gap"] < 1e-2 for d in differences),
            {
                "same": len(turns) - len(differences),
                "of": len(turns),
                "cached_tokens": cached_tokens,
                "differences": differences,
            },
        )
    ]


def _against_fresh(prompt: list[int], generated: list[int]) -> dict[str, Any] | None:
    """Give a fresh context the same tokens; returns where it would say something else, if it does."""
    backend = LlamaBackend(LlamaModel(model_path()), engine_config(sequences=1))
    try:
        backend.decode([BatchEntry(0, 0, prompt, True)])
        for at, expected in enumerate(generated):
            logits = backend.logits(0)
            token = int(logits.argmax())
            if token != expected:
                gap = float(logits[token] - logits[expected])
                return {"token": at, "fresh": token, "reused": expected, "gap": gap}
            backend.decode([BatchEntry(0, backend.seq_length(0), [token], True)])
    finally:
        backend.close()
    return None


def _number(index: int) -> str:
    return str(4100 + 37 * index)


def _messages(index: int) -> list[dict[str, str]]:
    fact = f"The customer is {_NAMES[index]}. The policy number is {_number(index)}. The car is blue."
    return [
        {"role": "system", "content": f"You are a helpful phone assistant. {fact}"},
        {"role": "user", "content": "What is my policy number, and what is insured?"},
    ]
