"""EngineConfig: how a model is loaded and how much it may take of the machine."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

from ..errors import ConfigError

__all__ = ["MAX_SEQUENCES", "AdmissionRule", "EngineConfig", "FlashAttention", "KVLayout", "KVType"]

AdmissionRule = Literal["forecast", "limit"]
FlashAttention = Literal["auto", "on", "off"]
KVLayout = Literal["auto", "split", "unified"]
KVType = Literal["f16", "q8_0"]

MAX_SEQUENCES: Final = 256
"""llama.cpp's own limit (``LLAMA_MAX_SEQ``)."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How a model is loaded and how much it may take of the machine; validated, so later code need not look again.

    Attributes:
        sequences: Calls held side by side in the KV cache.
        context_per_call: Tokens of prompt and reply that one call can hold.
        threads: CPU threads of a single-token step; "auto" chooses at warm-up.
        threads_batch: CPU threads of a prefill step; "auto" chooses at warm-up.
        batch_tokens: Most tokens that one step takes (llama.cpp's ``n_batch``).
        micro_batch_tokens: Most tokens computed at once (``n_ubatch``), at most ``batch_tokens``; "auto" is up to 512.
        gpu_layers: Layers held by an accelerator; -1 holds all, 0 none.
        flash_attention: "auto" measures at warm-up, since it is slower on some machines.
        kv_layout: "split" gives each call its own KV stream, "unified" lets all share their cells, "auto" chooses.
        kv_type: Number format of the KV cache; "q8_0" halves its memory and needs flash attention.
        swa_full: Keep the whole history of sliding-window layers instead of their window only.
        kv_offload: Keep the KV cache in the accelerator's memory, where there is one, instead of the host's.
        use_mmap: Map the model file into memory instead of reading it.
        max_step_ms: Longest step that the scheduler plans; bounds how late a cancel or a new turn is seen. Where all
            replies can wait, a step of prompts may be three times as long.
        max_ahead_s: How much speech a caller may have in store before nothing more of a paced reply is decoded.
        admission: "forecast" refuses a call with which first words would be late for everyone, by what the open ones
            bring, besides one more than there are places for; "limit" counts places only.
        saved_state_bytes: Host memory for the saved states of shared prefixes.
        parked_bytes: Host memory for the saved states of idle calls.

    Raises:
        ConfigError: A value is not allowed; the message names the field, its value and what is.
    """

    sequences: int = 8
    context_per_call: int = 8192
    threads: int | Literal["auto"] = "auto"
    threads_batch: int | Literal["auto"] = "auto"
    batch_tokens: int = 512
    micro_batch_tokens: int | Literal["auto"] = "auto"
    gpu_layers: int = -1
    flash_attention: FlashAttention = "auto"
    kv_layout: KVLayout = "auto"
    kv_type: KVType = "f16"
    swa_full: bool = False
    kv_offload: bool = True
    use_mmap: bool = True
    max_step_ms: float = 100.0
    max_ahead_s: float = 20.0
    admission: AdmissionRule = "forecast"
    saved_state_bytes: int = 256 * _MIB
    parked_bytes: int = 256 * _MIB

    def __post_init__(self) -> None:
        for name, (low, high) in _WHOLE_NUMBERS.items():
            _check_whole_number(name, getattr(self, name), low, high, auto=name in _MAY_BE_AUTO)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise _refused(name, getattr(self, name), "one of " + ", ".join(map(repr, choices)))
        for name in ("swa_full", "kv_offload", "use_mmap"):
            if not isinstance(getattr(self, name), bool):
                raise _refused(name, getattr(self, name), "true or false")
        _check_number("max_step_ms", self.max_step_ms, 1, 10_000, "milliseconds")
        _check_number("max_ahead_s", self.max_ahead_s, 1, 3600, "seconds")
        if isinstance(self.micro_batch_tokens, int) and self.micro_batch_tokens > self.batch_tokens:
            allowed = f"at most batch_tokens ({self.batch_tokens})"
            raise _refused("micro_batch_tokens", self.micro_batch_tokens, allowed)
        if self.kv_type == "q8_0" and self.flash_attention == "off":
            raise _refused("kv_type", self.kv_type, "'f16' where flash_attention is 'off'")

    def replace(self, **overrides: Any) -> Self:
        """Return a copy with ``overrides``; a value of None leaves the field as it is.

        Raises:
            ConfigError: A name is unknown or a value is not allowed.
        """
        known = {f.name for f in dataclasses.fields(self)}
        for name in overrides:
            if name not in known:
                raise ConfigError(f"unknown engine setting {name!r}; there are {', '.join(sorted(known))}", param=name)
        return dataclasses.replace(self, **{k: v for k, v in overrides.items() if v is not None})


_WHOLE_NUMBERS: Final[dict[str, tuple[int, int]]] = {
    "sequences": (1, MAX_SEQUENCES),
    "context_per_call": (64, 4_194_304),
    "threads": (1, 512),
    "threads_batch": (1, 512),
    "batch_tokens": (1, 65_536),
    "micro_batch_tokens": (1, 65_536),
    "gpu_layers": (-1, 10_000),
    "saved_state_bytes": (0, 2**48),
    "parked_bytes": (0, 2**48),
}
_MAY_BE_AUTO: Final = frozenset({"threads", "threads_batch", "micro_batch_tokens"})
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "admission": get_args(AdmissionRule),
    "flash_attention": get_args(FlashAttention),
    "kv_layout": get_args(KVLayout),
    "kv_type": get_args(KVType),
}


def _check_whole_number(name: str, value: object, low: int, high: int, *, auto: bool) -> None:
    if auto and value == "auto":
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _refused(name, value, f"a whole number from {low} to {high}" + (' or "auto"' if auto else ""))


def _check_number(name: str, value: object, low: float, high: float, unit: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # type: ignore[operator]
        raise _refused(name, value, f"a number of {unit} from {low:g} to {high:g}")


def _refused(name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{name} is {value!r}; allowed is {allowed}", param=name)
