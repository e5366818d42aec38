"""PrefixStore and common_prefix_length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.engine import IsolationKey, PrefixStore
from voice_llm.engine.prefix import common_prefix_length
from voice_llm.testing import FakeState

pytestmark = pytest.mark.unit

ACME = IsolationKey("model", "profile", "acme")
RIVAL = IsolationKey("model", "profile", "rival")
KIB = 1024


def state(tokens: list[int]) -> FakeState:
    return FakeState(tuple(tokens))


def add(store: PrefixStore, key: IsolationKey, tokens: list[int]) -> bool:
    return store.add(key, tokens, state(tokens))


def found(store: PrefixStore, key: IsolationKey, prompt: list[int]) -> tuple[list[int], int] | None:
    match = store.find(key, prompt)
    return None if match is None else (match.tokens, match.length)


def naive_common_prefix(a: list[int], b: list[int]) -> int:
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


TOKENS = st.lists(st.integers(0, 2), max_size=40)


@given(TOKENS, TOKENS, TOKENS)
def test_common_prefix_is_what_a_plain_loop_says(shared: list[int], a: list[int], b: list[int]) -> None:
    a, b = shared + a, shared + b
    assert common_prefix_length(a, b) == naive_common_prefix(a, b)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4999])
def test_common_prefix_of_long_prompts_that_differ_in_one_token(length: int) -> None:
    prompt = list(range(5000))
    other = [*prompt[:length], -1, *prompt[length + 1 :]]
    assert common_prefix_length(prompt, other) == length


def test_longest_of_several_states_is_found() -> None:
    store = PrefixStore(100 * KIB)
    for tokens in ([1, 2], [1, 2, 3, 4], [1, 9]):
        add(store, ACME, tokens)
    assert found(store, ACME, [1, 2, 3, 7]) == ([1, 2, 3, 4], 3)


def test_nothing_in_common_is_no_match() -> None:
    store = PrefixStore(100 * KIB)
    add(store, ACME, [1, 2])
    assert store.find(ACME, [5, 2]) is None
    assert store.find(ACME, []) is None


@pytest.mark.parametrize(
    "other",
    [
        RIVAL,
        IsolationKey("other-model", "profile", "acme"),
        IsolationKey("model", "other-profile", "acme"),
        IsolationKey("model", "profile", "acme", adapter="lora"),
        IsolationKey("model", "profile", ""),
    ],
)
def test_no_other_key_finds_a_tenants_state(other: IsolationKey) -> None:
    store = PrefixStore(100 * KIB)
    add(store, ACME, [1, 2, 3])
    assert store.find(other, [1, 2, 3]) is None
    assert store.find(ACME.of_profile, [1, 2, 3]) is None


def test_profiles_own_prompt_is_found_by_all_its_tenants_and_by_no_other_profile_or_adapter() -> None:
    store = PrefixStore(100 * KIB)
    add(store, ACME.of_profile, [1, 2, 3])
    assert found(store, ACME, [1, 2, 3]) == found(store, RIVAL, [1, 2, 3]) == ([1, 2, 3], 3)
    assert store.find(IsolationKey("model", "other-profile", "acme"), [1, 2, 3]) is None
    assert store.find(IsolationKey("model", "profile", "acme", "lora"), [1, 2, 3]) is None


def test_least_recently_used_states_go_when_memory_is_full() -> None:
    store = PrefixStore(6 * KIB)
    add(store, ACME, [1, 1])
    add(store, ACME, [2, 2])
    add(store, ACME, [3, 3])
    store.find(ACME, [1, 1])
    add(store, RIVAL, [4, 4])
    assert [found(store, ACME, [n, n]) is not None for n in (1, 2, 3)] == [True, False, True]
    assert found(store, RIVAL, [4, 4]) is not None
    assert store.nbytes == 6 * KIB


def test_state_larger_than_the_store_is_refused_and_costs_nobody_its_place() -> None:
    store = PrefixStore(2 * KIB)
    assert add(store, ACME, [1, 2])
    assert not add(store, RIVAL, [1, 2, 3])
    assert found(store, ACME, [1, 2]) is not None


def test_one_tenant_cannot_push_out_another() -> None:
    store = PrefixStore(100 * KIB, per_key=2)
    add(store, RIVAL, [9])
    for n in range(20):
        add(store, ACME, [n])
    assert found(store, RIVAL, [9]) is not None
    assert len(store) == 3
    assert found(store, ACME, [19]) is not None


@pytest.mark.parametrize(("tokens", "worth"), [([1, 2, 3, 4], False), ([1, 2, 8, 9], False), ([1, 7, 8, 9], True)])
def test_only_what_is_half_new_is_worth_keeping(tokens: list[int], worth: bool) -> None:
    store = PrefixStore(100 * KIB)
    add(store, ACME, [1, 2, 3, 4])
    assert store.would_add(ACME, tokens) is worth
    assert store.would_add(RIVAL, tokens)
    assert not store.would_add(RIVAL, [])


def test_later_changes_to_the_callers_list_do_not_reach_the_store() -> None:
    store = PrefixStore(100 * KIB)
    tokens = [1, 2]
    add(store, ACME, tokens)
    tokens.append(3)
    assert found(store, ACME, [1, 2, 3]) == ([1, 2], 2)


@given(
    st.lists(
        st.tuples(st.sampled_from([ACME, RIVAL, ACME.of_profile]), st.lists(st.integers(0, 2), min_size=1, max_size=6)),
        max_size=30,
    )
)
def test_memory_and_count_stay_bounded_and_matches_are_true(added: list[tuple[IsolationKey, list[int]]]) -> None:
    store = PrefixStore(12 * KIB, per_key=3)
    for key, tokens in added:
        add(store, key, tokens)
        assert store.nbytes <= 12 * KIB
        assert len(store) <= 9
        match = store.find(key, tokens)
        assert match is not None
        assert match.length == naive_common_prefix(match.tokens, tokens) == len(tokens)


def test_repr_shows_states_and_bytes() -> None:
    store = PrefixStore(4 * KIB)
    add(store, ACME, [1, 2])
    assert repr(store) == "<PrefixStore [states: 1 | bytes: 2048/4096]>"
