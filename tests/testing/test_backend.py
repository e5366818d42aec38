"""FakeBackend and VirtualClock: as strict as llama.cpp, as predictable as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.backend import Backend, BatchEntry
from voice_llm.config.sampling import SamplingParams
from voice_llm.errors import BackendError, ContextFullError, GrammarError
from voice_llm.testing import CONTROL_TOKENS, FakeBackend, VirtualClock, echo_reply

pytestmark = pytest.mark.unit

PROMPT = "<|im_start|>user\nSelam<|im_end|>\n<|im_start|>assistant\n"


def entry(sequence_id: int, position: int, tokens: list[int], *, wants_logits: bool = True) -> BatchEntry:
    return BatchEntry(sequence_id, position, tokens, wants_logits)


def reply_of(backend: FakeBackend, prompt: str = PROMPT, sequence_id: int = 0) -> bytes:
    """Decode a prompt and the whole reply to it, token by token."""
    sampler = backend.new_sampler(SamplingParams())
    tokens = backend.tokenize(prompt, parse_special=True)
    data = b""
    for _ in range(1000):
        backend.decode([entry(sequence_id, backend.seq_length(sequence_id), tokens)])
        token = backend.sample(0, sampler)
        if backend.is_end_of_turn(token):
            sampler.close()
            return data
        data += backend.token_bytes(token)
        tokens = [token]
    raise AssertionError("the reply does not end")


def test_fake_is_a_backend() -> None:
    assert isinstance(FakeBackend(), Backend)


def test_reply_comes_from_the_script_and_is_seen_token_by_token() -> None:
    assert reply_of(FakeBackend()).decode() == "You said Selam. That makes 1."


@pytest.mark.parametrize("reply", ["Görüşürüz, iyi günler!", "Tamam 😊.", "", "çok\nsatırlı"])
def test_replies_of_many_byte_characters_are_whole(reply: str) -> None:
    assert reply_of(FakeBackend(reply=lambda _: reply)).decode() == reply


def test_script_sees_only_what_the_cache_holds() -> None:
    seen: list[str] = []

    def script(prompt: str) -> str:
        seen.append(prompt)
        return "x"

    backend = FakeBackend(reply=script)
    backend.decode([entry(0, 0, backend.tokenize("left over "), wants_logits=False)])
    reply_of(backend)
    assert set(seen) == {"left over <|im_start|>user\nSelam<|im_end|>\n"}


def test_cache_that_does_not_agree_with_the_script_ends_the_reply() -> None:
    backend = FakeBackend(reply=lambda _: "right")
    assert reply_of(backend, PROMPT + "wrong") == b""
    assert reply_of(backend, "no header", sequence_id=1) == b""


def test_control_text_in_content_stays_text() -> None:
    backend = FakeBackend()
    assert CONTROL_TOKENS["<|im_end|>"] not in backend.tokenize(PROMPT)
    assert backend.tokenize(PROMPT, parse_special=True).count(CONTROL_TOKENS["<|im_end|>"]) == 1
    assert backend.token_bytes(CONTROL_TOKENS["<|im_end|>"]) == b""
    assert backend.token_bytes(CONTROL_TOKENS["<think>"]) == b"<think>"


@given(st.text(max_size=40), st.booleans())
def test_text_of_tokens_is_the_text(text: str, parse_special: bool) -> None:
    backend = FakeBackend()
    assert backend.text_of(backend.tokenize(text, parse_special=parse_special)) == text


def test_echo_counts_the_users_turns() -> None:
    assert echo_reply(PROMPT.replace("Selam", "bir") + PROMPT) == "You said Selam. That makes 2."
    assert echo_reply("") == "You said nothing. That makes 0."


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "a batch of 0 tokens"),
        ([entry(0, 0, [])], "a batch of 0 tokens"),
        ([entry(0, 0, [1]), entry(1, 0, [])], "a batch of 1 tokens"),
        ([entry(0, 0, [1] * 9)], "a batch of 9 tokens"),
        ([entry(0, 0, [1]), entry(0, 1, [1])], "stands in the batch twice"),
        ([entry(0, 1, [1])], "position 1 where 0 tokens are held"),
        ([entry(0, 0, [263])], "outside the vocabulary"),
        ([entry(0, 0, [-1])], "outside the vocabulary"),
    ],
)
def test_batches_that_would_abort_llama_cpp_are_refused_and_change_nothing(
    entries: list[BatchEntry], message: str
) -> None:
    backend = FakeBackend(max_batch_tokens=8)
    with pytest.raises(BackendError, match=message):
        backend.decode(entries)
    assert (backend.seq_length(0), backend.counters.batches) == (0, 0)


def test_full_sequence_is_refused_and_nothing_of_the_batch_is_kept() -> None:
    backend = FakeBackend(context_per_call=4)
    backend.decode([entry(0, 0, [1, 2, 3, 4])])
    with pytest.raises(ContextFullError, match="sequence 0 is full"):
        backend.decode([entry(1, 0, [1]), entry(0, 4, [5])])
    assert backend.seq_length(1) == 0


def test_failures_come_in_order_and_leave_their_sequences_in_an_unknown_state() -> None:
    backend = FakeBackend()
    backend.fail_next(ContextFullError("full"))
    backend.fail_next(BackendError("failed"))
    with pytest.raises(ContextFullError, match="full"):
        backend.decode([entry(0, 0, [1])])
    assert backend.tokens_of(0) == []
    with pytest.raises(BackendError, match="failed"):
        backend.decode([entry(0, 0, [1])])
    assert backend.tokens_of(0) not in ([], [1])
    backend.seq_drop(0)
    backend.decode([entry(0, 0, [1])])


def test_only_rows_that_asked_for_logits_can_be_sampled() -> None:
    backend = FakeBackend()
    sampler = backend.new_sampler(SamplingParams())
    backend.decode([entry(0, 0, [1], wants_logits=False), entry(1, 0, [1])])
    backend.sample(1, sampler)
    with pytest.raises(BackendError, match="entry 0 has no logits"):
        backend.sample(0, sampler)
    backend.decode([entry(0, 1, [1])])
    with pytest.raises(BackendError, match="entry 1 has no logits"):
        backend.sample(1, sampler)


def test_closed_sampler_is_refused_and_counted_once() -> None:
    backend = FakeBackend()
    sampler = backend.new_sampler(SamplingParams())
    assert backend.open_samplers == 1
    sampler.close()
    sampler.close()
    assert backend.open_samplers == 0
    backend.decode([entry(0, 0, [1])])
    with pytest.raises(BackendError, match="sampler is closed"):
        backend.sample(0, sampler)


def test_grammar_without_a_root_rule_is_refused() -> None:
    with pytest.raises(GrammarError, match="root"):
        FakeBackend().new_sampler(SamplingParams(grammar='start ::= "a"'))


def test_micro_batches_are_counted_and_timed() -> None:
    clock = VirtualClock()
    backend = FakeBackend(clock=clock, micro_batch_ms=10, token_ms=1)
    assert backend.decode([entry(1, 0, [1]), entry(0, 0, [1])]) == 1
    assert clock() == pytest.approx(0.012)
    assert backend.decode([entry(0, 1, [1]), entry(2, 0, [1])]) == 2
    assert clock() == pytest.approx(0.034)
    assert (backend.counters.batches, backend.counters.micro_batches, backend.counters.decoded_tokens) == (2, 3, 4)
    assert backend.batches == [[(1, 1), (0, 1)], [(0, 1), (2, 1)]]
    unified = FakeBackend(split_kv=False)
    assert unified.decode([entry(0, 0, [1]), entry(2, 0, [1])]) == 1


def test_trim_drop_save_and_restore_do_what_they_say() -> None:
    backend = FakeBackend()
    backend.decode([entry(0, 0, [1, 2, 3])])
    state = backend.seq_save(0)
    assert backend.seq_trim(0, 1)
    assert backend.tokens_of(0) == [1]
    backend.decode([entry(1, 0, [9])])
    backend.seq_restore(1, state)
    assert (backend.tokens_of(1), state.nbytes) == ([1, 2, 3], 3072)
    backend.seq_drop(1)
    assert backend.seq_length(1) == 0
    with pytest.raises(BackendError, match="cannot trim 1 tokens to 2"):
        backend.seq_trim(0, 2)


def test_rewind_behind_a_sliding_window_says_no_and_empties_the_sequence() -> None:
    backend = FakeBackend(sliding_window=4)
    backend.decode([entry(0, 0, [1, 2, 3, 4])])
    assert backend.seq_trim(0, 2)
    backend.decode([entry(0, 2, [3, 4, 5, 6, 7, 8])])
    state = backend.seq_save(0)
    assert backend.seq_trim(0, 8)
    assert not backend.seq_trim(0, 5)
    assert backend.tokens_of(0) == []
    backend.seq_restore(0, state)
    assert backend.seq_trim(0, 7)
    assert not backend.seq_trim(0, 6)


def test_closed_backend_refuses_work() -> None:
    backend = FakeBackend()
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.decode([entry(0, 0, [1])])


def test_virtual_time_moves_only_when_told_to_and_never_back() -> None:
    clock = VirtualClock(5.0)
    assert (clock(), clock()) == (5.0, 5.0)
    clock.advance(0.25)
    assert clock() == 5.25
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)
