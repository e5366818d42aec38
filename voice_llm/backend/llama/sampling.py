"""LlamaSampler: one reply's sampling chain, and the grammar beside it.

The chain is llama.cpp's own, in its default order: penalties, top-k, top-p, min-p, temperature, draw. The grammar
stands outside the chain: checking the one drawn token is cheap, masking the whole vocabulary is not, so that is done
only when the drawn token is refused. A token that the grammar does not allow must never reach ``accept``: llama.cpp
aborts.

Every draw is llama.cpp's own, through calls that keep the GIL. Both ways around its cost, 40 to 75 us a row at a
vocabulary of 49k and 150 to 270 us at 152k, lose elsewhere. Picking out the few likeliest tokens in numpy first costs
as much at 49k, half at 152k, and gives the GIL away six times a row: beside a busy event loop each time costs
milliseconds. Sampling inside the model's graph (``llama_set_sampler``) saves a percent of a CPU's step, but attaching
it costs the next step milliseconds, at each turn with a seed or parameters of its own. On a GPU it would spare the copy
of all logits to the host and the draws of many calls one after the other, 17 ms a step at 64 calls and 152k.
"""

from __future__ import annotations

import ctypes
import math
import secrets
from typing import Any

import numpy as np

from ...config.sampling import SamplingParams
from ...config.structure import StructuralTags
from ...errors import BackendError, GrammarError
from .candidates import CANDIDATE, Logits, as_native
from .grammar import check_grammar
from .library import api, last_errors
from .model import LlamaModel
from .schema import schema_to_gbnf
from .tags import tags_to_gbnf

__all__ = ["LlamaSampler"]


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
        self._chain: Any = _new_chain(model, params)
        self._closed = False

    def sample(self, logits: Logits, row: int) -> int:
        """Draw the token that follows batch row ``row`` and note it."""
        if self._closed:
            raise BackendError("the sampler is closed")
        if self._grammar is None:
            return int(api.llama_sampler_sample(self._chain, logits.context, row))
        token = self._draw_with_grammar(logits, row)
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
        token, _ = self._draw(logits.candidates(row))
        if self._allows(token):
            return token
        candidates = logits.candidates(row)
        api.llama_sampler_apply(self._grammar, ctypes.byref(candidates))
        # What the grammar forbids has the logit -inf now, which every filter puts last and no draw takes.
        token, logit = self._draw(candidates)
        if not math.isfinite(logit):
            raise GrammarError("the grammar has reached a state in which no token of this model is allowed")
        return token

    def _draw(self, candidates: Any) -> tuple[int, float]:
        """Return the token that the chain selects, and its logit as the chain has left it."""
        api.llama_sampler_apply(self._chain, ctypes.byref(candidates))
        if not 0 <= candidates.selected < candidates.size:
            raise BackendError("the sampling chain selected no token")
        selected = candidates.data[candidates.selected]
        return int(selected.id), float(selected.logit)

    def _allows(self, token: int) -> bool:
        one = np.array([(token, 1.0, 0.0)], dtype=CANDIDATE)
        api.llama_sampler_apply(self._grammar, ctypes.byref(as_native(one)))
        return math.isfinite(one["logit"][0])


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
        # Looking for the largest logit, this is the faster of llama.cpp's two loops; both take the first of equals.
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_top_k(1))
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
