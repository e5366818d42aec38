"""LlamaSampler: one reply's sampling chain, and the grammar beside it.

The chain is llama.cpp's own, in its default order: penalties, top-k, top-p, min-p, temperature, draw. The grammar
stands outside the chain: checking the one drawn token is cheap, masking the whole vocabulary is not, so that is done
only when the drawn token is refused. A token that the grammar does not allow must never reach ``accept``: llama.cpp
aborts.
"""

from __future__ import annotations

import ctypes
import secrets
from typing import Any, Final

import numpy as np

from ...config.sampling import SamplingParams
from ...config.structure import StructuralTags
from ...errors import BackendError, GrammarError
from .grammar import check_grammar
from .library import api, last_errors, types
from .model import LlamaModel
from .schema import schema_to_gbnf
from .tags import tags_to_gbnf

__all__ = ["LlamaSampler", "Logits"]

_CANDIDATE: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Logits:
    """Reads rows of logits of a context's last batch without copying."""

    def __init__(self, context: Any, n_vocab: int) -> None:
        self._context = context
        self._row_type = ctypes.c_float * n_vocab
        self.context = context
        self.ids = np.arange(n_vocab, dtype=np.int32)

    def row(self, row: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return a view of the logits of batch row ``row``: float32, shape (n_vocab,); valid until the next decode."""
        pointer = api.llama_get_logits_ith(self._context, row)
        if not pointer:
            raise BackendError(f"row {row} has no logits: {last_errors()}")
        address = ctypes.addressof(pointer.contents)
        return np.ctypeslib.as_array(self._row_type.from_address(address))


class LlamaSampler:
    """Sampling state of one reply.

    Args:
        model: Whose vocabulary is sampled from.
        params: What to apply. Penalties count the reply's own tokens, not the prompt's, so that quoting facts from the
            context stays free.
        tags: What the reply's tool calls look like.

    Raises:
        GrammarError: The grammar, the JSON schema or the schema of a tag cannot be used.
    """

    def __init__(self, model: LlamaModel, params: SamplingParams, tags: StructuralTags | None = None) -> None:
        self._model = model
        self._closed = True
        self._tags = tags
        self._grammar: Any = _new_grammar(model, params, tags)
        # llama.cpp's own lazy grammars end the process where a trigger and text that cannot follow it come in one
        # token; and they know nothing of thoughts. So the grammar of tags waits here until the text has come to one.
        self._waiting: Any = None
        if tags is not None and not tags.at_once:
            self._grammar, self._waiting = None, self._grammar
        self._greedy = params.temperature == 0 and not _has_penalties(params)
        self._chain: Any = None if self._greedy else _new_chain(model, params)
        self._closed = False

    def sample(self, logits: Logits, row: int) -> int:
        """Draw the token that follows batch row ``row`` and note it."""
        if self._closed:
            raise BackendError("the sampler is closed")
        if self._grammar is None:
            if self._greedy:
                return int(logits.row(row).argmax())
            return int(api.llama_sampler_sample(self._chain, logits.context, row))
        token = self._draw_with_grammar(logits, row)
        if self._chain is not None:
            api.llama_sampler_accept(self._chain, token)
        if token not in self._model.end_of_turn_tokens:
            api.llama_sampler_accept(self._grammar, token)
        return token

    def open_tag(self, said: str) -> None:
        """See ``Sampler``."""
        if self._closed:
            raise BackendError("the sampler is closed")
        if self._tags is None or self._grammar is not None:
            return
        if said.strip():
            self._grammar = _init_grammar(self._model, tags_to_gbnf(self._tags, said), "tools")
        else:
            self._grammar, self._waiting = self._waiting, None

    def close(self) -> None:
        """Free the chain and the grammars; idempotent."""
        if not self._closed:
            self._closed = True
            for sampler in (self._chain, self._grammar, self._waiting):
                if sampler is not None:
                    api.llama_sampler_free(sampler)

    def __del__(self) -> None:
        # The net for a request that was cancelled before it reached the engine.
        self.close()

    def _draw_with_grammar(self, logits: Logits, row: int) -> int:
        values = logits.row(row)
        token = self._draw(_candidates(logits.ids, values))
        if self._allows(token):
            return token
        candidates = _candidates(logits.ids, values)
        api.llama_sampler_apply(self._grammar, ctypes.byref(_as_native(candidates)))
        if not np.isfinite(candidates["logit"]).any():
            raise GrammarError("the grammar has reached a state in which no token of this model is allowed")
        # The chain's filters sort and cut in place, so only what the grammar allows may enter it.
        return self._draw(np.ascontiguousarray(candidates[np.isfinite(candidates["logit"])]))

    def _draw(self, candidates: np.ndarray[Any, Any]) -> int:
        if self._chain is None:
            return int(candidates["id"][candidates["logit"].argmax()])
        native = _as_native(candidates)
        api.llama_sampler_apply(self._chain, ctypes.byref(native))
        if not 0 <= native.selected < native.size:
            raise BackendError("the sampling chain selected no token")
        return int(native.data[native.selected].id)

    def _allows(self, token: int) -> bool:
        one = np.array([(token, 1.0, 0.0)], dtype=_CANDIDATE)
        api.llama_sampler_apply(self._grammar, ctypes.byref(_as_native(one)))
        return bool(np.isfinite(one["logit"][0]))


def _has_penalties(params: SamplingParams) -> bool:
    return params.repetition_penalty != 1 or params.presence_penalty != 0 or params.frequency_penalty != 0


def _new_chain(model: LlamaModel, params: SamplingParams) -> Any:
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    if _has_penalties(params):
        penalties = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
        api.llama_sampler_chain_add(
            chain, api.llama_sampler_init_penalties(model.n_vocab, params.max_tokens, *penalties)
        )
    if params.temperature == 0:
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_greedy())
        return chain
    if params.top_k:
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_top_k(params.top_k))
    if params.top_p < 1:
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_top_p(params.top_p, 1))
    if params.min_p > 0:
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_min_p(params.min_p, 1))
    api.llama_sampler_chain_add(chain, api.llama_sampler_init_temp(params.temperature))
    # llama.cpp takes 32 bits and reads all ones as "draw a seed from the clock".
    seed = secrets.randbits(64) if params.seed is None else params.seed % 2**64
    api.llama_sampler_chain_add(chain, api.llama_sampler_init_dist(((seed ^ seed >> 32) & 0xFFFFFFFF) % 0xFFFFFFFF))
    return chain


def _new_grammar(model: LlamaModel, params: SamplingParams, tags: StructuralTags | None) -> Any:
    if tags is not None:
        if params.grammar is not None or params.json_schema is not None:
            name = "grammar" if params.grammar is not None else "json_schema"
            raise GrammarError(f"{name} and tools that may be called exclude each other", param=name)
        return _init_grammar(model, tags_to_gbnf(tags), "tools")
    if params.json_schema is not None:
        text, param = schema_to_gbnf(params.json_schema), "json_schema"
    elif params.grammar is not None:
        text, param = params.grammar, "grammar"
    else:
        return None
    check_grammar(text, param=param)
    return _init_grammar(model, text, param)


def _init_grammar(model: LlamaModel, text: str, param: str) -> Any:
    last_errors()
    grammar = api.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")
    if not grammar:
        raise GrammarError(f"llama.cpp refuses the grammar: {last_errors()}", param=param)
    return grammar


def _candidates(ids: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    candidates = np.empty(len(ids), dtype=_CANDIDATE)
    candidates["id"], candidates["logit"], candidates["p"] = ids, values, 0.0
    return candidates


def _as_native(candidates: np.ndarray[Any, Any]) -> Any:
    """Wrap an array as ``llama_token_data_array``; the array must outlive it."""
    native = types.llama_token_data_array()
    field_type = dict(types.llama_token_data_array._fields_)["data"]
    native.data = ctypes.cast(candidates.ctypes.data, field_type)
    native.size = len(candidates)
    native.selected = -1
    native.sorted = False
    return native
