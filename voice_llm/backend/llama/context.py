"""LlamaBackend: one llama.cpp context with many sequences, behind the ``Backend`` protocol.

llama.cpp ends the process on a broken precondition, and no ``except`` catches that. So every call is checked here
first: batch size, token ids, sequence ids, consecutive positions, rows that have logits, states that fit, open
handles.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ...config.engine import EngineConfig
from ...config.sampling import SamplingParams
from ...config.structure import StructuralTags
from ...errors import BackendError, ConfigError, ContextFullError
from ..base import BackendCounters, BackendInfo, BatchEntry, Sampler, SavedState
from ..micro_batches import count_micro_batches
from .batch import NativeBatch
from .candidates import Logits
from .library import api, last_errors
from .model import LlamaModel
from .sampling import LlamaSampler

__all__ = ["LlamaBackend", "LlamaState"]

_GGML_TYPES: Final = {"f16": 1, "q8_0": 8}
_FLASH_ATTENTION: Final = {"off": 0, "on": 1}
_NO_KV_SLOT: Final = 1


@dataclass(frozen=True, slots=True)
class LlamaState:
    """A sequence's KV state in host memory; fits only a context of the same ``key``."""

    key: str
    length: int
    data: np.ndarray[Any, np.dtype[np.uint8]]

    @property
    def nbytes(self) -> int:
        """Host memory that it takes, in bytes."""
        return int(self.data.nbytes)


class LlamaBackend:
    """One model and one context, owned by one thread (tokenizing is free for all).

    Args:
        model: The loaded weights; closed together with the backend.
        config: Sizes and choices, each "auto" already settled (see ``tuning``).
        owns_model: Whether closing the backend closes the model.

    Raises:
        BackendError: llama.cpp could not create the context (memory, mostly).
    """

    def __init__(self, model: LlamaModel, config: EngineConfig, *, owns_model: bool = True) -> None:
        self._model = model
        self._owns_model = owns_model
        self._context: Any = None
        self._split = config.kv_layout != "unified"
        self._micro_batch_tokens = min(_settled(config, "micro_batch_tokens"), config.batch_tokens)
        batch_tokens = max(config.batch_tokens, config.sequences)
        self._context = _create_context(model, config, batch_tokens, self._micro_batch_tokens)
        self._memory = api.llama_get_memory(self._context)
        self._batch = NativeBatch(batch_tokens)
        self._logits = Logits(self._context, model.n_vocab)
        self._lengths = [0] * config.sequences
        # With swa_full too: a saved state holds the window only.
        self._window = model.sliding_window
        self._rows: dict[int, int] = {}
        # A CPU is done when ``llama_decode`` returns; to give the GIL away once more could cost milliseconds.
        self._computes_later = bool(api.llama_supports_gpu_offload())
        self._counters = BackendCounters()
        file_id = f"{model.path.name}:{model.path.stat().st_size}"
        layout = (config.kv_type, config.flash_attention, self._split, config.sequences, config.context_per_call)
        self._state_key = f"{file_id}:{layout}"
        self._info = BackendInfo(
            model_id=file_id,
            sequences=config.sequences,
            context_per_call=min(config.context_per_call, int(api.llama_n_ctx_seq(self._context))),
            max_batch_tokens=batch_tokens,
            chat_template=model.chat_template,
            bos_token=model.bos_token,
            eos_token=model.eos_token,
            add_bos=model.add_bos,
            split_kv=self._split,
            sliding_window=0 if config.swa_full else self._window,
        )

    def __repr__(self) -> str:
        used = sum(1 for n in self._lengths if n)
        layout = "split" if self._split else "unified"
        return f"<LlamaBackend {self._info.model_id} [{layout} KV | sequences: {used}/{len(self._lengths)} used]>"

    @property
    def info(self) -> BackendInfo:
        """What is fixed once the model is loaded."""
        return self._info

    @property
    def model(self) -> LlamaModel:
        """The weights and the vocabulary."""
        return self._model

    @property
    def counters(self) -> BackendCounters:
        """Running totals."""
        return self._counters

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """See ``Tokenizer``."""
        return self._model.control_tokens

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """See ``Tokenizer``."""
        return self._model.tokenize(text, parse_special=parse_special)

    def token_bytes(self, token: int) -> bytes:
        """See ``Tokenizer``."""
        return self._model.token_bytes(token)

    def is_end_of_turn(self, token: int) -> bool:
        """See ``Backend``."""
        return token in self._model.end_of_turn_tokens

    def decode(self, entries: Sequence[BatchEntry]) -> int:
        """See ``Backend``; rows are sorted by sequence id, so that neighbours share a micro-batch."""
        self._check_entries(entries)
        order = sorted(range(len(entries)), key=lambda i: entries[i].sequence_id)
        in_order = [entries[i] for i in order]
        self._rows = dict(zip(order, self._batch.fill(in_order), strict=True))
        last_errors()
        status = api.llama_decode(self._open_context(), self._batch.native)
        if status:
            self._rows = {}
            self._resync_lengths(entries)
            if status == _NO_KV_SLOT:
                raise ContextFullError("the KV cache has no room for this batch")
            raise BackendError(f"llama_decode failed with {status}: {last_errors()}")
        for entry in entries:
            self._lengths[entry.sequence_id] += len(entry.tokens)
        micro_batches = count_micro_batches(in_order, split_kv=self._split, micro_batch_tokens=self._micro_batch_tokens)
        self._counters.batches += 1
        self._counters.micro_batches += micro_batches
        self._counters.decoded_tokens += sum(len(e.tokens) for e in entries)
        if self._computes_later:
            # Logits are read lazily; waiting here keeps the wait outside calls that hold the GIL.
            api.llama_synchronize(self._context)
        return micro_batches

    def new_sampler(self, params: SamplingParams, tags: StructuralTags | None = None) -> LlamaSampler:
        """See ``Backend``."""
        return LlamaSampler(self._model, params, tags)

    def sample(self, entry_index: int, sampler: Sampler) -> int:
        """See ``Backend``."""
        if not isinstance(sampler, LlamaSampler):
            raise BackendError(f"{type(sampler).__name__} is not a sampler of this backend")
        self._open_context()
        row = self._rows.get(entry_index, -1)
        if row < 0:
            raise BackendError(f"entry {entry_index} of the last batch has no logits to sample from")
        token = sampler.sample(self._logits, row)
        self._counters.sampled_tokens += 1
        return token

    def logits(self, entry_index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return a copy of the logits after an entry of the last batch: float32, shape (n_vocab,)."""
        row = self._rows.get(entry_index, -1)
        if row < 0:
            raise BackendError(f"entry {entry_index} of the last batch has no logits")
        return self._logits.row(row).copy()

    def seq_length(self, sequence_id: int) -> int:
        """See ``Backend``; this is llama.cpp's own figure, not ours."""
        self._check_sequence(sequence_id)
        return int(api.llama_memory_seq_pos_max(self._memory, sequence_id)) + 1

    def seq_trim(self, sequence_id: int, length: int) -> bool:
        """See ``Backend``.

        llama.cpp says yes to a trim of a sliding-window sequence even when the window before ``length`` is gone, so the
        oldest position that is left is what counts.
        """
        self._check_sequence(sequence_id)
        if not 0 <= length <= self._lengths[sequence_id]:
            raise BackendError(f"cannot trim sequence {sequence_id} of {self._lengths[sequence_id]} tokens to {length}")
        if length == self._lengths[sequence_id]:
            return True
        kept = length > 0 and bool(api.llama_memory_seq_rm(self._memory, sequence_id, length, -1))
        if kept and self._window:
            # The next token, at position ``length``, attends to itself and to the ``window - 1`` before it.
            oldest = int(api.llama_memory_seq_pos_min(self._memory, sequence_id))
            kept = 0 <= oldest <= max(0, length - self._window + 1)
        if not kept:
            self.seq_drop(sequence_id)
            return length == 0
        self._lengths[sequence_id] = length
        return True

    def seq_drop(self, sequence_id: int) -> None:
        """See ``Backend``."""
        self._check_sequence(sequence_id)
        api.llama_memory_seq_rm(self._memory, sequence_id, -1, -1)
        self._lengths[sequence_id] = 0

    def seq_save(self, sequence_id: int) -> LlamaState:
        """See ``Backend``."""
        self._check_sequence(sequence_id)
        size = int(api.llama_state_seq_get_size(self._context, sequence_id))
        data = np.empty(size, dtype=np.uint8)
        written = int(api.llama_state_seq_get_data(self._context, _bytes_pointer(data), size, sequence_id))
        if not 0 < written <= size:
            raise BackendError(f"the state of sequence {sequence_id} cannot be saved: {last_errors()}")
        return LlamaState(self._state_key, self._lengths[sequence_id], data[:written])

    def seq_restore(self, sequence_id: int, state: SavedState) -> None:
        """See ``Backend``."""
        self._check_sequence(sequence_id)
        if not isinstance(state, LlamaState) or state.key != self._state_key:
            raise BackendError("the saved state belongs to another model or to a context of other sizes")
        self.seq_drop(sequence_id)
        read = int(
            api.llama_state_seq_set_data(self._context, _bytes_pointer(state.data), state.data.nbytes, sequence_id)
        )
        if read != state.data.nbytes or self.seq_length(sequence_id) != state.length:
            self.seq_drop(sequence_id)
            raise BackendError(f"a saved state cannot be restored: {last_errors()}")
        self._lengths[sequence_id] = state.length

    def close(self) -> None:
        """Free the context, and the model where it is owned; idempotent."""
        if self._context:
            api.llama_free(self._context)
            self._context = None
            self._rows = {}
        if self._owns_model:
            self._model.close()

    def _open_context(self) -> Any:
        if not self._context:
            raise BackendError("the backend is closed")
        return self._context

    def _check_sequence(self, sequence_id: int) -> None:
        self._open_context()
        if not 0 <= sequence_id < len(self._lengths):
            raise BackendError(f"sequence {sequence_id} does not exist; there are {len(self._lengths)}")

    def _check_entries(self, entries: Sequence[BatchEntry]) -> None:
        self._open_context()
        total = sum(len(e.tokens) for e in entries)
        if not 0 < total <= self._info.max_batch_tokens or not all(e.tokens for e in entries):
            raise BackendError(
                f"a batch takes 1 to {self._info.max_batch_tokens} tokens and no empty entry, not {total}"
            )
        if len({e.sequence_id for e in entries}) != len(entries):
            raise BackendError("a sequence may stand in a batch only once")
        for entry in entries:
            self._check_sequence(entry.sequence_id)
            held = self._lengths[entry.sequence_id]
            if entry.position != held:
                raise BackendError(
                    f"sequence {entry.sequence_id} holds {held} tokens; cannot decode at {entry.position}"
                )
            if held + len(entry.tokens) > self._info.context_per_call:
                raise ContextFullError(f"sequence {entry.sequence_id} is full at {self._info.context_per_call} tokens")
            self._model.check_token(min(entry.tokens))
            self._model.check_token(max(entry.tokens))

    def _resync_lengths(self, entries: Sequence[BatchEntry]) -> None:
        for entry in entries:
            self._lengths[entry.sequence_id] = self.seq_length(entry.sequence_id)


def _create_context(model: LlamaModel, config: EngineConfig, batch_tokens: int, micro_batch_tokens: int) -> Any:
    if config.flash_attention not in _FLASH_ATTENTION or config.kv_layout == "auto":
        raise ConfigError("flash_attention and kv_layout must be settled before a context is created")
    params = api.llama_context_default_params()
    params.n_ctx = config.context_per_call * config.sequences
    params.n_batch = batch_tokens
    params.n_ubatch = micro_batch_tokens
    params.n_seq_max = config.sequences
    params.n_outputs_max = config.sequences
    params.n_threads = _settled(config, "threads")
    params.n_threads_batch = _settled(config, "threads_batch")
    params.flash_attn_type = _FLASH_ATTENTION[config.flash_attention]
    params.type_k = params.type_v = _GGML_TYPES[config.kv_type]
    params.kv_unified = config.kv_layout == "unified"
    params.swa_full = config.swa_full
    params.offload_kqv = config.kv_offload
    params.no_perf = True
    last_errors()
    context = api.llama_init_from_model(model.pointer, params)
    if not context:
        raise BackendError(
            f"no context for {config.sequences} calls of {config.context_per_call} tokens: {last_errors()}; "
            "try fewer sequences or a smaller context_per_call"
        )
    if not api.llama_get_memory(context) or api.llama_model_has_encoder(model.pointer):
        # llama.cpp would encode instead of decode, and abort.
        api.llama_free(context)
        raise BackendError(f"{model.path.name} cannot generate text: it is an encoder, or was loaded without weights")
    return context


def _settled(config: EngineConfig, name: str) -> int:
    value = getattr(config, name)
    if not isinstance(value, int):
        raise ConfigError(f"{name} must be settled before a context is created, not {value!r}", param=name)
    return value


def _bytes_pointer(data: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    return data.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
