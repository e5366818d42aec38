from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voice_llm.backend.base import Backend, BatchEntry
from voice_llm.backend.llama import LlamaBackend, LlamaModel, LlamaState
from voice_llm.config.sampling import SamplingParams
from voice_llm.errors import BackendError, ConfigError, ContextFullError
from voice_llm.testing import FakeBackend

from .support import CONTEXT_TOKENS, GREEDY, PROMPT, continuation, engine_config, generate, prefill, text_of

pytestmark = pytest.mark.model

Prompts = dict[int, list[int]]


@pytest.fixture(scope="session")
def expected(split_backend: LlamaBackend) -> list[int]:
    """What the model says after ``PROMPT``."""
    return continuation(split_backend)


@pytest.fixture(scope="session")
def other_backend(model: LlamaModel) -> Iterator[LlamaBackend]:
    """The same weights, another number of sequences."""
    created = LlamaBackend(model, engine_config(sequences=2), owns_model=False)
    yield created
    created.close()


def different_prompts(backend: LlamaBackend) -> Prompts:
    texts = ["One two three", "The sky is", "Merhaba, nasılsın", "Water boils at a temperature of"]
    return {i: backend.tokenize(text) for i, text in enumerate(texts)}


def logits_of(backend: LlamaBackend, prompts: Prompts, order: list[int]) -> dict[int, np.ndarray]:
    """Prefill each prompt alone but for its last token; decode the last ones together, in that order."""
    for sequence_id, tokens in prompts.items():
        backend.seq_drop(sequence_id)
        backend.decode([BatchEntry(sequence_id, 0, tokens[:-1], False)])
    backend.decode([BatchEntry(i, len(prompts[i]) - 1, prompts[i][-1:], True) for i in order])
    return {i: backend.logits(row) for row, i in enumerate(order)}


def entry(sequence_id: int = 0, position: int = 0, count: int = 1, token: int = 100) -> BatchEntry:
    return BatchEntry(sequence_id, position, [token] * count, True)


REFUSED_BATCHES: dict[str, tuple[list[BatchEntry], str]] = {
    "no entry": ([], "1 to 512 tokens"),
    "an empty entry": ([entry(0), BatchEntry(1, 0, [], True)], "no empty entry"),
    "too many tokens": ([entry(0, 0, 300), entry(1, 0, 213)], "not 513"),
    "a sequence too high": ([entry(4)], "sequence 4 does not exist; there are 4"),
    "a negative sequence": ([entry(-1)], "sequence -1 does not exist"),
    "a sequence twice": ([entry(0), entry(0, 1)], "only once"),
    "a token too high": ([entry(0, token=49_152)], "token id 49152 is outside"),
    "a negative token": ([BatchEntry(0, 0, [100, -1, 100], True)], "token id -1 is outside"),
    "a gap": ([entry(0, 3)], "holds 0 tokens; cannot decode at 3"),
    "a negative position": ([entry(0, -1)], "cannot decode at -1"),
}


@pytest.mark.parametrize(("batch", "reason"), REFUSED_BATCHES.values(), ids=REFUSED_BATCHES.keys())
def test_a_batch_that_would_end_the_process_is_refused(
    backend: LlamaBackend, expected: list[int], batch: list[BatchEntry], reason: str
) -> None:
    with pytest.raises(BackendError, match=reason):
        backend.decode(batch)
    assert continuation(backend) == expected


def test_decoding_again_at_a_position_that_is_held_is_refused(backend: LlamaBackend, expected: list[int]) -> None:
    backend.decode([entry(0, 0, 5)])
    with pytest.raises(BackendError, match="holds 5 tokens; cannot decode at 4"):
        backend.decode([entry(0, 4)])
    assert backend.seq_length(0) == 5
    assert continuation(backend) == expected


def test_a_full_sequence_is_named_and_keeps_what_it_has(either_backend: LlamaBackend, expected: list[int]) -> None:
    prefill(either_backend, 1, [100] * CONTEXT_TOKENS)
    with pytest.raises(ContextFullError, match="sequence 1 is full at 256 tokens"):
        either_backend.decode([entry(0), entry(1, CONTEXT_TOKENS)])
    assert (either_backend.seq_length(0), either_backend.seq_length(1)) == (0, CONTEXT_TOKENS)
    either_backend.seq_drop(1)
    assert continuation(either_backend) == expected


@pytest.mark.parametrize("sequence_id", [-1, 4, 256])
@pytest.mark.parametrize(
    "use",
    [
        lambda b, i: b.seq_length(i),
        lambda b, i: b.seq_trim(i, 0),
        lambda b, i: b.seq_drop(i),
        lambda b, i: b.seq_save(i),
        lambda b, i: b.seq_restore(i, b.seq_save(0)),
    ],
    ids=["length", "trim", "drop", "save", "restore"],
)
def test_a_sequence_that_does_not_exist_is_refused(
    backend: LlamaBackend, use: Callable[[LlamaBackend, int], object], sequence_id: int
) -> None:
    with pytest.raises(BackendError, match=f"sequence {sequence_id} does not exist"):
        use(backend, sequence_id)


@pytest.mark.parametrize("length", [-1, 6])
def test_a_trim_beyond_what_is_held_is_refused(backend: LlamaBackend, length: int) -> None:
    backend.decode([entry(0, 0, 5)])
    with pytest.raises(BackendError, match=f"cannot trim sequence 0 of 5 tokens to {length}"):
        backend.seq_trim(0, length)
    assert backend.seq_length(0) == 5


def test_sampling_where_no_logits_are_is_refused(backend: LlamaBackend, expected: list[int]) -> None:
    sampler = backend.new_sampler(GREEDY)
    backend.decode([entry(0), BatchEntry(1, 0, [100], False)])
    backend.sample(0, sampler)
    for index in (1, 2, -1):
        with pytest.raises(BackendError, match=f"entry {index} of the last batch has no logits"):
            backend.sample(index, sampler)
        with pytest.raises(BackendError, match="no logits"):
            backend.logits(index)
    assert continuation(backend) == expected


def test_rows_of_an_earlier_decode_are_gone(backend: LlamaBackend) -> None:
    backend.decode([entry(0), entry(1)])
    backend.decode([entry(2)])
    with pytest.raises(BackendError, match="entry 1 of the last batch has no logits"):
        backend.sample(1, backend.new_sampler(GREEDY))


def test_rows_outlive_a_batch_that_was_refused(backend: LlamaBackend) -> None:
    backend.decode([entry(0)])
    before = backend.logits(0)
    with pytest.raises(BackendError, match="does not exist"):
        backend.decode([entry(9)])
    assert np.array_equal(backend.logits(0), before)


def test_samplers_that_are_closed_or_of_another_backend_are_refused(backend: LlamaBackend, expected: list[int]) -> None:
    backend.decode([entry(0)])
    closed = backend.new_sampler(SamplingParams(temperature=1))
    closed.close()
    closed.close()
    with pytest.raises(BackendError, match="the sampler is closed"):
        backend.sample(0, closed)
    with pytest.raises(BackendError, match="FakeSampler is not a sampler of this backend"):
        backend.sample(0, FakeBackend().new_sampler(GREEDY))
    assert continuation(backend) == expected


def test_a_closed_backend_refuses_everything_and_closes_again(model: LlamaModel) -> None:
    backend = LlamaBackend(model, engine_config(sequences=1), owns_model=False)
    sampler = backend.new_sampler(GREEDY)
    backend.decode([entry(0)])
    state = backend.seq_save(0)
    backend.close()
    backend.close()
    uses: list[Callable[[], object]] = [
        lambda: backend.decode([entry(0, 1)]),
        lambda: backend.sample(0, sampler),
        lambda: backend.logits(0),
        lambda: backend.seq_length(0),
        lambda: backend.seq_trim(0, 0),
        lambda: backend.seq_drop(0),
        lambda: backend.seq_save(0),
        lambda: backend.seq_restore(0, state),
    ]
    for use in uses:
        with pytest.raises(BackendError):
            use()
    assert backend.tokenize("the model lives on")


def test_a_backend_closes_the_model_that_it_owns(smollm2_path: Path) -> None:
    backend = LlamaBackend(LlamaModel(smollm2_path, gpu_layers=0), engine_config(sequences=1))
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.tokenize("x")
    with pytest.raises(BackendError, match="closed"):
        backend.token_bytes(100)
    with pytest.raises(BackendError, match="closed"):
        backend.new_sampler(SamplingParams(grammar='root ::= "a"'))


def test_a_model_that_cannot_generate_is_refused(smollm2_path: Path) -> None:
    vocabulary = LlamaModel(smollm2_path, vocab_only=True)
    with pytest.raises(BackendError, match="cannot generate text"):
        LlamaBackend(vocabulary, engine_config(sequences=1))
    vocabulary.close()


@pytest.mark.parametrize("field", ["threads", "threads_batch", "micro_batch_tokens", "flash_attention", "kv_layout"])
def test_a_choice_that_is_not_settled_is_refused(model: LlamaModel, field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}.* must be settled"):
        LlamaBackend(model, engine_config().replace(**{field: "auto"}), owns_model=False)


def test_it_is_a_backend_and_says_what_it_is(backend: LlamaBackend) -> None:
    assert isinstance(backend, Backend)
    info = backend.info
    assert (info.sequences, info.context_per_call, info.max_batch_tokens, info.split_kv) == (4, 256, 512, True)
    assert info.model_id.startswith("SmolLM2-135M-Instruct.Q4_1.gguf:")
    backend.decode([entry(2)])
    assert "split KV | sequences: 1/4 used" in repr(backend)
    assert backend.is_end_of_turn(backend.control_tokens["<|im_end|>"])
    assert not backend.is_end_of_turn(100)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3]])
def test_each_entry_has_its_own_logits_in_whatever_order_it_stands(
    either_backend: LlamaBackend, order: list[int]
) -> None:
    prompts = different_prompts(either_backend)
    alone = {i: logits_of(either_backend, prompts, [i])[i] for i in prompts}
    together = logits_of(either_backend, prompts, order)
    for i in order:
        assert np.allclose(together[i], alone[i], atol=0.5)
        distance = {j: float(np.abs(together[i] - alone[j]).mean()) for j in prompts}
        assert min(distance, key=distance.__getitem__) == i


def test_sixteen_calls_together_say_what_each_says_alone(model: LlamaModel) -> None:
    backend = LlamaBackend(model, engine_config(sequences=16), owns_model=False)
    cities = ["Paris", "London", "Rome", "Ankara", "Berlin", "Madrid", "Vienna", "Athens"]
    prompts = [backend.tokenize(f"{city} {verb}") for city in cities for verb in ("is a city in", "lies on the river")]
    alone = []
    for i, tokens in enumerate(prompts):
        backend.decode([BatchEntry(i, 0, tokens, True)])
        alone.append(backend.sample(0, backend.new_sampler(GREEDY)))
        backend.seq_drop(i)
    backend.decode([BatchEntry(i, 0, tokens, True) for i, tokens in enumerate(prompts)])
    assert [backend.sample(i, backend.new_sampler(GREEDY)) for i in range(16)] == alone
    backend.close()


def test_a_prompt_may_come_in_chunks(either_backend: LlamaBackend, expected: list[int]) -> None:
    tokens = either_backend.tokenize(PROMPT)
    for position, token in enumerate(tokens):
        either_backend.decode([BatchEntry(0, position, [token], position == len(tokens) - 1)])
    assert generate(either_backend, 0, either_backend.new_sampler(GREEDY), len(expected)) == expected


def test_neighbours_share_a_micro_batch_in_whatever_order_they_stand(backend: LlamaBackend) -> None:
    assert backend.decode([entry(3), entry(1), entry(0), entry(2)]) == 1


def test_counters_tell_what_was_done(backend: LlamaBackend) -> None:
    before = dataclasses.replace(backend.counters)
    assert backend.decode([entry(0), entry(1), entry(3)]) == 2
    assert backend.decode([entry(2, 0, 7)]) == 1
    backend.sample(0, backend.new_sampler(GREEDY))
    after = backend.counters
    assert (after.batches - before.batches, after.micro_batches - before.micro_batches) == (2, 3)
    assert (after.decoded_tokens - before.decoded_tokens, after.sampled_tokens - before.sampled_tokens) == (10, 1)


@pytest.mark.parametrize("micro_batch_tokens", [2, 5, 32])
@pytest.mark.parametrize("kv_layout", ["split", "unified"])
def test_micro_batches_are_counted_as_llama_cpp_logs_them(
    model: LlamaModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kv_layout: str,
    micro_batch_tokens: int,
) -> None:
    monkeypatch.setenv("LLAMA_BATCH_DEBUG", "1")
    config = engine_config(batch_tokens=32, sequences=6).replace(
        kv_layout=kv_layout, micro_batch_tokens=micro_batch_tokens
    )
    backend = LlamaBackend(model, config, owns_model=False)
    for lengths in ({0: 1, 1: 1, 2: 1, 3: 1}, {5: 3, 0: 2, 1: 4, 3: 1}, {4: 20}, {0: 5, 1: 5, 2: 5, 3: 5, 4: 5, 5: 5}):
        caplog.clear()
        with caplog.at_level("DEBUG", logger="voice_llm.llama_cpp"):
            counted = backend.decode([entry(i, backend.seq_length(i), n) for i, n in lengths.items()])
        assert counted == sum("added ubatch to split" in r.getMessage() for r in caplog.records)
    backend.close()


@pytest.mark.parametrize("kv_offload", [True, False])
def test_the_kv_cache_lies_where_the_configuration_says(
    model: LlamaModel, monkeypatch: pytest.MonkeyPatch, kv_offload: bool
) -> None:
    asked = []

    def refuse(_: object, params: Any) -> None:
        asked.append(params.offload_kqv)

    monkeypatch.setattr("voice_llm.backend.llama.context.api.llama_init_from_model", refuse)
    with pytest.raises(BackendError):
        LlamaBackend(model, engine_config().replace(kv_offload=kv_offload), owns_model=False)
    assert asked == [kv_offload]


def test_other_threads_run_while_a_batch_is_decoded(backend: LlamaBackend) -> None:
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    started_s = time.monotonic()
    backend.decode([entry(0, 0, 64)])
    took_s = time.monotonic() - started_s
    done.set()
    thread.join()
    middle = [t for t in ticks if 0.25 * took_s < t - started_s < 0.75 * took_s]
    assert middle


def test_a_saved_state_says_the_same_in_another_sequence(either_backend: LlamaBackend, expected: list[int]) -> None:
    tokens = either_backend.tokenize(PROMPT)
    prefill(either_backend, 0, tokens[:-1])
    state = either_backend.seq_save(0)
    assert (state.length, state.nbytes > 1000) == (len(tokens) - 1, True)
    prefill(either_backend, 3, either_backend.tokenize("Something else entirely"))
    either_backend.seq_restore(3, state)
    assert either_backend.seq_length(3) == len(tokens) - 1
    either_backend.decode([BatchEntry(i, len(tokens) - 1, tokens[-1:], True) for i in (0, 3)])
    assert np.allclose(either_backend.logits(0), either_backend.logits(1), atol=0.1)
    sampler = either_backend.new_sampler(GREEDY)
    either_backend.seq_trim(3, len(tokens) - 1)
    either_backend.decode([BatchEntry(3, len(tokens) - 1, tokens[-1:], True)])
    assert generate(either_backend, 3, sampler, len(expected)) == expected


def test_a_restored_state_may_be_trimmed_to_a_shared_beginning(
    either_backend: LlamaBackend, expected: list[int]
) -> None:
    tokens = either_backend.tokenize(PROMPT)
    prefill(either_backend, 0, tokens + either_backend.tokenize(" a place where it rains"))
    either_backend.seq_restore(2, either_backend.seq_save(0))
    assert either_backend.seq_trim(2, len(tokens) - 1)
    assert either_backend.seq_length(2) == len(tokens) - 1
    either_backend.decode([BatchEntry(2, len(tokens) - 1, tokens[-1:], True)])
    assert generate(either_backend, 2, either_backend.new_sampler(GREEDY), len(expected)) == expected


def test_a_trim_to_the_present_length_changes_nothing(either_backend: LlamaBackend) -> None:
    prefill(either_backend, 0, either_backend.tokenize(PROMPT))
    length = either_backend.seq_length(0)
    assert either_backend.seq_trim(0, length)
    assert either_backend.seq_length(0) == length


def test_a_trim_to_nothing_empties_only_that_sequence(either_backend: LlamaBackend, expected: list[int]) -> None:
    for sequence_id in (0, 1):
        prefill(either_backend, sequence_id, either_backend.tokenize("Something else entirely"))
    assert either_backend.seq_trim(0, 0)
    assert (either_backend.seq_length(0), either_backend.seq_length(1)) == (0, 3)
    assert continuation(either_backend) == expected


def test_an_empty_sequence_can_be_saved_and_restored(either_backend: LlamaBackend) -> None:
    state = either_backend.seq_save(1)
    prefill(either_backend, 0, either_backend.tokenize(PROMPT))
    either_backend.seq_restore(0, state)
    assert either_backend.seq_length(0) == 0


def test_states_that_do_not_fit_are_refused(
    backend: LlamaBackend, unified_backend: LlamaBackend, other_backend: LlamaBackend, expected: list[int]
) -> None:
    prefill(backend, 0, backend.tokenize(PROMPT))
    for foreign in (unified_backend, other_backend):
        foreign.seq_drop(0)
        prefill(foreign, 0, foreign.tokenize(PROMPT))
        with pytest.raises(BackendError, match="another model or to a context of other sizes"):
            backend.seq_restore(1, foreign.seq_save(0))
    other_weights = dataclasses.replace(backend.seq_save(0), key="another.gguf:1")
    for state in (other_weights, FakeBackend().seq_save(0)):
        with pytest.raises(BackendError, match="another model"):
            backend.seq_restore(1, state)
    assert continuation(backend, sequence_id=1) == expected


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_state_leaves_the_sequence_empty(
    either_backend: LlamaBackend, expected: list[int], share: float
) -> None:
    prefill(either_backend, 0, either_backend.tokenize(PROMPT))
    whole = either_backend.seq_save(0)
    cut = LlamaState(whole.key, whole.length, whole.data[: int(whole.nbytes * share)])
    with pytest.raises(BackendError, match="cannot be restored"):
        either_backend.seq_restore(1, cut)
    assert either_backend.seq_length(1) == 0
    assert continuation(either_backend, sequence_id=1) == expected


def test_a_state_of_another_length_than_it_says_is_refused(backend: LlamaBackend) -> None:
    prefill(backend, 0, backend.tokenize(PROMPT))
    with pytest.raises(BackendError, match="cannot be restored"):
        backend.seq_restore(1, dataclasses.replace(backend.seq_save(0), length=99))
    assert backend.seq_length(1) == 0


def test_what_the_model_says_is_sensible(backend: LlamaBackend, expected: list[int]) -> None:
    assert "Paris" in text_of(backend, expected)
