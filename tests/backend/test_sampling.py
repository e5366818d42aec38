from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from voice_llm.backend.base import BatchEntry
from voice_llm.backend.llama import LlamaBackend
from voice_llm.config.sampling import SamplingParams

from .support import GREEDY, continuation, prefill, text_of

pytestmark = pytest.mark.model

PROMPT = "My favourite colour is"
REPETITIVE = "red, red, red, red, red, red, red,"
# No filter but the one under test.
OPEN: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


@pytest.fixture
def ready(backend: LlamaBackend) -> LlamaBackend:
    """A backend with logits after ``PROMPT`` as entry 0; sampling again and again needs no further decode."""
    prefill(backend, 0, backend.tokenize(PROMPT))
    return backend


def draws(backend: LlamaBackend, count: int = 40, **params: Any) -> list[int]:
    """Draw from the same logits with one sampler."""
    sampler = backend.new_sampler(SamplingParams(**{"temperature": 1.0, "seed": 1, **OPEN, **params}))
    return [backend.sample(0, sampler) for _ in range(count)]


def ranked(backend: LlamaBackend) -> list[int]:
    return [int(token) for token in np.argsort(-backend.logits(0), kind="stable")]


def penalized(
    backend: LlamaBackend, count: int, *, repetition: float = 1, presence: float = 0, frequency: float = 0
) -> list[int]:
    """The greedy draws that the penalties' formulas give."""
    seen: dict[int, int] = {}
    tokens: list[int] = []
    for _ in range(count):
        logits = backend.logits(0)
        for token, times in seen.items():
            logits[token] = logits[token] / repetition if logits[token] > 0 else logits[token] * repetition
            logits[token] -= frequency * times + presence
        tokens.append(int(logits.argmax()))
        seen[tokens[-1]] = seen.get(tokens[-1], 0) + 1
    return tokens


def test_temperature_zero_takes_the_likeliest(ready: LlamaBackend) -> None:
    assert draws(ready, 5, temperature=0) == [int(ready.logits(0).argmax())] * 5


def test_a_high_temperature_varies_and_a_low_one_hardly(ready: LlamaBackend) -> None:
    assert len(set(draws(ready, temperature=5.0))) > 30
    assert len(set(draws(ready, temperature=0.05))) <= 3


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 0.0001}, {"min_p": 1.0}], ids=lambda p: next(iter(p)))
def test_the_narrowest_filter_leaves_the_likeliest_alone(ready: LlamaBackend, narrow: dict[str, Any]) -> None:
    assert set(draws(ready, temperature=3.0, **narrow)) == {ranked(ready)[0]}


def test_top_k_draws_from_the_k_likeliest(ready: LlamaBackend) -> None:
    drawn = set(draws(ready, 100, temperature=10.0, top_k=5))
    assert drawn == set(ranked(ready)[:5])


def test_top_p_keeps_the_smallest_set_that_is_likely_enough(ready: LlamaBackend) -> None:
    odds = np.exp(ready.logits(0).astype(np.float64))
    order = ranked(ready)
    cumulative = np.cumsum(odds[order] / odds.sum())
    kept = int(np.searchsorted(cumulative, 0.5)) + 1
    assert set(draws(ready, 200, temperature=10.0, top_p=0.5)) <= set(order[:kept])
    assert len(set(draws(ready, 200, temperature=10.0, top_p=0.5))) > 1


def test_min_p_drops_what_is_far_less_likely_than_the_likeliest(ready: LlamaBackend) -> None:
    logits = ready.logits(0)
    kept = {int(t) for t in np.flatnonzero(logits >= logits.max() + np.log(0.2))}
    assert set(draws(ready, 200, temperature=10.0, min_p=0.2)) == kept


@pytest.mark.parametrize(
    "penalty", [{"presence": 1.5}, {"frequency": 0.7}, {"repetition": 1.3}], ids=lambda p: next(iter(p))
)
def test_a_penalty_follows_its_formula(ready: LlamaBackend, penalty: dict[str, float]) -> None:
    params: dict[str, Any] = {f"{name}_penalty": value for name, value in penalty.items()}
    drawn = draws(ready, 12, temperature=0, **params)
    assert drawn == penalized(ready, 12, **penalty)
    assert len(set(drawn)) > 1


def test_penalties_spare_the_prompts_own_tokens(backend: LlamaBackend) -> None:
    prefill(backend, 0, backend.tokenize(REPETITIVE))
    likeliest = int(backend.logits(0).argmax())
    assert likeliest in backend.tokenize(REPETITIVE)
    assert draws(backend, 1, temperature=0, presence_penalty=5, frequency_penalty=5, repetition_penalty=3) == [
        likeliest
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("repetition_penalty", 2.0), ("presence_penalty", 8.0), ("frequency_penalty", 2.0)]
)
def test_a_penalty_breaks_a_repetitive_reply(backend: LlamaBackend, name: str, value: float) -> None:
    overrides: dict[str, Any] = {name: value}
    plain = continuation(backend, REPETITIVE, 12)
    varied = continuation(backend, REPETITIVE, 12, params=SamplingParams(temperature=0, **overrides))
    assert len(set(plain)) < len(set(varied))


def test_the_same_seed_draws_the_same(ready: LlamaBackend) -> None:
    assert draws(ready, temperature=3.0, seed=7) == draws(ready, temperature=3.0, seed=7)


@pytest.mark.parametrize("other", [8, 7 + 2**32, 7 + 2**40, -7, 2**63 - 1, 2**32 - 1])
def test_another_seed_draws_something_else(ready: LlamaBackend, other: int) -> None:
    assert draws(ready, temperature=3.0, seed=7) != draws(ready, temperature=3.0, seed=other)


def test_the_seed_that_llama_cpp_reads_as_random_is_repeatable_too(ready: LlamaBackend) -> None:
    assert draws(ready, temperature=3.0, seed=2**32 - 1) == draws(ready, temperature=3.0, seed=2**32 - 1)


def test_without_a_seed_every_reply_differs(ready: LlamaBackend) -> None:
    assert draws(ready, temperature=3.0, seed=None) != draws(ready, temperature=3.0, seed=None)


def test_a_seeded_reply_is_repeatable_text(backend: LlamaBackend) -> None:
    def reply(seed: int) -> str:
        params = SamplingParams(temperature=1.5, seed=seed, top_k=200, top_p=1, min_p=0.01)
        tokens = continuation(backend, PROMPT, 8, params=params)
        return b"".join(map(backend.token_bytes, tokens)).decode("utf-8", "replace")

    assert reply(1) == reply(1)
    assert reply(1) != reply(2)


def test_samplers_of_several_calls_do_not_share_their_state(ready: LlamaBackend) -> None:
    params = SamplingParams(temperature=3.0, seed=5, presence_penalty=1, **OPEN)
    alone = [ready.sample(0, s) for s in [ready.new_sampler(params)] for _ in range(10)]
    first, second = ready.new_sampler(params), ready.new_sampler(params)
    together = [(ready.sample(0, first), ready.sample(0, second)) for _ in range(10)]
    assert together == [(token, token) for token in alone]


def test_each_row_is_sampled_for_its_own_call(backend: LlamaBackend) -> None:
    prompts = [backend.tokenize("The capital of France is"), backend.tokenize("The capital of Germany is")]
    backend.decode([BatchEntry(i, 0, tokens, True) for i, tokens in enumerate(prompts)])
    texts = [text_of(backend, [backend.sample(i, backend.new_sampler(GREEDY))]) for i in (0, 1)]
    assert texts == [" Paris", " Berlin"]
