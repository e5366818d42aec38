"""SimulatedBackend: takes as long as a real one, and says what it is told to."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence

from ...backend.base import BatchEntry, Sampler, SavedState, Tokenizer
from ...config.sampling import SamplingParams
from ...config.structure import StructuralTags
from ...engine import DecodeShape
from ...engine.step_costs import StepCosts
from ...errors import BackendError
from ...testing import FakeBackend, FakeSampler, FakeState
from .clock import StepClock

__all__ = ["SimulatedBackend"]


class _ScriptedSampler(FakeSampler):
    def __init__(self, backend: FakeBackend, tags: StructuralTags | None, script: Sequence[int]) -> None:
        super().__init__(backend, tags)
        self._left = iter(script)

    def draw(self, end: int) -> int:
        return next(self._left, end)


class SimulatedBackend(FakeBackend):
    """A backend whose steps take virtual time, by the costs of a real one; as strict as ``FakeBackend``.

    Args:
        tokenizer: Text to tokens: a real model's, or ``WordTokenizer``.
        costs: What steps take.
        clock: Advanced by them.
        sequences: Calls side by side.
        context_per_call: Tokens a sequence holds.
        max_batch_tokens: As in ``BackendInfo``.
        split_kv: As in ``BackendInfo``.
        seed: Of how far single steps lie off the costs.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        costs: StepCosts,
        *,
        clock: StepClock,
        sequences: int = 8,
        context_per_call: int = 8192,
        max_batch_tokens: int = 512,
        split_kv: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(sequences=sequences, clock=clock)
        self.clock = clock
        self._tokenizer = tokenizer
        self._rng = random.Random(seed)
        self.use_costs(costs)
        self._next_reply: list[int] = []
        self._info = dataclasses.replace(
            tokenizer.info,
            sequences=sequences,
            context_per_call=context_per_call,
            max_batch_tokens=max_batch_tokens,
            split_kv=split_kv,
        )
        self._end = tokenizer.control_tokens[tokenizer.info.eos_token]

    def use_costs(self, costs: StepCosts) -> None:
        """Let steps cost this from now on."""
        self.costs = costs
        # Of a normal distribution, the mean of |x| is 0.8 of its deviation.
        self._deviation = costs.spread / 0.8

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """See ``Tokenizer``."""
        return self._tokenizer.control_tokens

    def tokenize(self, text: str, *, parse_special: bool = False) -> list[int]:
        """See ``Tokenizer``."""
        return self._tokenizer.tokenize(text, parse_special=parse_special)

    def token_bytes(self, token: int) -> bytes:
        """See ``Tokenizer``."""
        return self._tokenizer.token_bytes(token)

    def is_end_of_turn(self, token: int) -> bool:
        """See ``Backend``."""
        return token == self._end

    def say_next(self, text: str) -> None:
        """Let the next sampler that is made say this; one that is told nothing says nothing."""
        self._next_reply = self.tokenize(text, parse_special=True)

    def new_sampler(self, params: SamplingParams, tags: StructuralTags | None = None) -> FakeSampler:
        """See ``Backend``."""
        reply, self._next_reply = self._next_reply, []
        return _ScriptedSampler(self, tags, reply)

    def sample(self, entry_index: int, sampler: Sampler) -> int:
        """See ``Backend``."""
        if entry_index not in self._rows:
            raise BackendError(f"entry {entry_index} has no logits")
        if not isinstance(sampler, _ScriptedSampler) or sampler.closed:
            raise BackendError("the sampler is closed or not of this backend")
        self._counters.sampled_tokens += 1
        self._pass(self.costs.sample_ms)
        return sampler.draw(self._end)

    def seq_save(self, sequence_id: int) -> FakeState:
        """See ``Backend``."""
        self._pass(self.costs.copy_ms_per_token * self.seq_length(sequence_id) / 2)
        return super().seq_save(sequence_id)

    def seq_restore(self, sequence_id: int, state: SavedState) -> None:
        """See ``Backend``."""
        super().seq_restore(sequence_id, state)
        self._pass(self.costs.copy_ms_per_token * self.seq_length(sequence_id) / 2)

    def _decoded(self, entries: Sequence[BatchEntry], micro_batches: int) -> None:
        single = sorted((e.sequence_id, e.position) for e in entries if len(e.tokens) == 1 and e.wants_logits)
        ms = self.costs.decode_step_ms(DecodeShape.of(single, split_kv=self._info.split_kv)) if single else 0.0
        for entry in entries:
            if len(entry.tokens) > 1 or not entry.wants_logits:
                ms += self.costs.prefill_chunk_ms(len(entry.tokens), entry.position)
        self._pass(ms * self._off())

    def _off(self) -> float:
        """Return how far a step lies off its costs, 1 on average."""
        deviation = self._deviation
        return math.exp(self._rng.gauss(-deviation * deviation / 2, deviation)) if deviation else 1.0

    def _pass(self, ms: float) -> None:
        self.clock.advance(ms / 1e3)

    def _is_known(self, token: int) -> bool:
        return token >= 0
