"""EngineConfig: what a deployment may ask of the engine."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_llm.config.engine import EngineConfig
from voice_llm.errors import ConfigError

pytestmark = pytest.mark.unit


def test_defaults_are_eight_calls_of_8192_tokens() -> None:
    config = EngineConfig()
    assert (config.sequences, config.context_per_call, config.threads, config.kv_type) == (8, 8192, "auto", "f16")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("sequences", 0, "a whole number from 1 to 256"),
        ("sequences", 257, "a whole number from 1 to 256"),
        ("sequences", 8.0, "a whole number from 1 to 256"),
        ("sequences", True, "a whole number from 1 to 256"),
        ("sequences", "auto", "a whole number from 1 to 256"),
        ("context_per_call", 0, "a whole number from 64"),
        ("threads", 0, 'a whole number from 1 to 512 or "auto"'),
        ("threads_batch", "many", 'or "auto"'),
        ("micro_batch_tokens", 513, "at most batch_tokens (512)"),
        ("gpu_layers", -2, "from -1"),
        ("flash_attention", True, "one of 'auto', 'on', 'off'"),
        ("admission", "open", "one of 'forecast', 'limit'"),
        ("kv_layout", "both", "one of 'auto', 'split', 'unified'"),
        ("kv_type", "q4_0", "one of 'f16', 'q8_0'"),
        ("swa_full", 1, "true or false"),
        ("kv_offload", "on", "true or false"),
        ("max_step_ms", 0.5, "milliseconds from 1 to 10000"),
        ("max_step_ms", float("nan"), "milliseconds from 1 to 10000"),
        ("max_step_ms", "fast", "milliseconds from 1 to 10000"),
        ("saved_state_bytes", -1, "a whole number from 0"),
        ("parked_bytes", None, "a whole number from 0"),
    ],
)
def test_bad_value_is_refused_with_field_value_and_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EngineConfig(**{name: value})
    assert str(caught.value).startswith(f"{name} is {value!r}; allowed is ")
    assert allowed in str(caught.value)
    assert caught.value.param == name


def test_quantized_kv_cache_is_refused_without_flash_attention_only() -> None:
    with pytest.raises(ConfigError, match="flash_attention is 'off'"):
        EngineConfig(kv_type="q8_0", flash_attention="off")
    assert EngineConfig(kv_type="q8_0", flash_attention="auto").kv_type == "q8_0"
    assert EngineConfig(kv_type="f16", flash_attention="off").kv_type == "f16"


@given(
    sequences=st.integers(1, 256),
    threads=st.one_of(st.just("auto"), st.integers(1, 512)),
    micro=st.one_of(st.just("auto"), st.integers(1, 512)),
)
def test_every_value_in_range_is_taken_as_it_is(sequences: int, threads: Any, micro: Any) -> None:
    config = EngineConfig(sequences=sequences, threads=threads, micro_batch_tokens=micro)
    assert (config.sequences, config.threads, config.micro_batch_tokens) == (sequences, threads, micro)


def test_replace_changes_what_is_given_and_ignores_none() -> None:
    config = EngineConfig(sequences=4).replace(context_per_call=2048, sequences=None)
    assert (config.sequences, config.context_per_call) == (4, 2048)


def test_replace_refuses_unknown_names_and_bad_values() -> None:
    with pytest.raises(ConfigError, match="unknown engine setting 'sequence'"):
        EngineConfig().replace(sequence=4)
    with pytest.raises(ConfigError, match="sequences is 0"):
        EngineConfig().replace(sequences=0)


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        EngineConfig().sequences = 2  # type: ignore[misc]
