"""One trial: what a turn costs a configuration on this machine at the load that it is made for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Self

from ...config.engine import EngineConfig
from ...errors import BackendError
from ..base import Backend, BatchEntry
from .context import LlamaBackend
from .model import LlamaModel

__all__ = ["Load", "Trial", "turn_ms"]

logger = logging.getLogger(__name__)

# A phone call in its middle: the opening prompt and a few turns. A quarter of the callers listen to a reply being made.
_CONTEXT_TOKENS: Final = 600
_CALLS_A_TALKER: Final = 4
_CHUNK_TOKENS: Final = 64
# What a turn takes of the machine: its share of the steps that its reply rides in, and the chunks of its prompt.
_REPLY_TOKENS: Final = 48
_CHUNKS_A_TURN: Final = 2
_STEPS: Final = 8
_CHUNKS: Final = 2
# Machines differ a hundredfold. What was not filled, or not repeated, when this time was up is left out.
_FILL_S: Final = 1.2
_COPY_S: Final = 0.5
_REPEAT_S: Final = 0.5
# llama.cpp computes attention over whole blocks of so many cells.
_CELLS: Final = 256


@dataclass(frozen=True, slots=True)
class Load:
    """The load that a configuration is made for.

    Attributes:
        calls: Calls that are held: as many as there are sequences.
        talkers: Those of them whose replies are made at once, one row each.
        context_tokens: What each call holds.
        chunk_tokens: Tokens of a chunk of prompt.
    """

    calls: int
    talkers: int
    context_tokens: int
    chunk_tokens: int

    @classmethod
    def of(cls, config: EngineConfig) -> Self:
        """Return the load that ``config`` is made for; contexts leave room for what the trial itself decodes."""
        chunk = max(1, min(_CHUNK_TOKENS, config.batch_tokens, config.context_per_call // 8))
        context = min(_CONTEXT_TOKENS, config.context_per_call - _own_tokens(chunk))
        return cls(config.sequences, max(1, config.sequences // _CALLS_A_TALKER), context, chunk)

    @property
    def trial_context(self) -> int:
        """The tokens of each sequence of a context to try with."""
        return self.context_tokens + _own_tokens(self.chunk_tokens)

    def cells(self, context_tokens: int, calls: int, *, split_kv: bool) -> int:
        """Return the KV cells that a row attends over, masked or not, where ``calls`` hold so many tokens each.

        Split KV: those of its own stream. Unified KV: those of all calls.
        """
        held = context_tokens if split_kv else context_tokens * calls
        return -(-held // _CELLS) * _CELLS


def _own_tokens(chunk: int) -> int:
    """Tokens that a sequence takes beside its context: single steps at both loads, and chunks."""
    return 2 * _STEPS + _CHUNKS * chunk


def turn_ms(model: LlamaModel, config: EngineConfig) -> float:
    """Time what a turn costs at the expected load, in milliseconds; infinite where the configuration does not run.

    The cache is filled as far as a bounded time allows, a call at a time by a copy of the first. What is missing to the
    expected load is extrapolated by a line through that and a nearly empty cache, for attention takes time in
    proportion to the cells.

    Args:
        model: The loaded weights.
        config: What to try, each "auto" settled; ``sequences`` and ``context_per_call`` say what load is expected.
    """
    load = Load.of(config)
    words = model.tokenize("The quick brown fox jumps over the lazy dog.") or [0]
    try:
        backend = LlamaBackend(model, config.replace(context_per_call=load.trial_context), owns_model=False)
        with closing(backend):
            return Trial(backend, load, words).turn_ms()
    except BackendError as e:
        logger.info("%r does not run here: %s", config, e)
        return float("inf")


@dataclass(frozen=True, slots=True)
class _Timed:
    """What something took where each row attended over so many cells."""

    cells: int
    ms: float

    def at(self, cells: int, lighter: _Timed) -> float:
        """Extrapolate to more cells along the line from ``lighter``; more of them never take less time."""
        if cells <= self.cells or self.cells <= lighter.cells:
            return self.ms
        more = (cells - self.cells) / (self.cells - lighter.cells)
        return self.ms + max(0.0, self.ms - lighter.ms) * more


class Trial:
    """Fills an empty backend and times it, once.

    Args:
        backend: Has the sequences of ``load``, each with room for ``load.trial_context`` tokens.
        load: What is expected.
        words: Tokens to fill with; any will do.
        clock: Monotonic seconds.
    """

    def __init__(
        self, backend: Backend, load: Load, words: list[int], *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._backend = backend
        self._load = load
        self._clock = clock
        self._split = backend.info.split_kv
        self._tokens = words * (load.context_tokens // len(words) + 1)
        self._held = [0] * load.calls

    def turn_ms(self) -> float:
        """Return the time of a turn at the expected load."""
        load = self._load
        started_s = self._clock()
        self._decode_chunk(0)  # the first run pays for its graph
        self._copy_to(range(1, load.talkers))
        light_step = self._step(load.talkers)
        light_chunk = self._chunk(0, load.talkers, most=1)
        while self._has_room(0) and self._clock() - started_s < _FILL_S:
            self._decode_chunk(0)
        calls = self._copy_to(range(1, load.calls))
        step = self._step(calls)
        chunk = self._chunk(calls - 1, calls, most=_CHUNKS)
        logger.debug("%r: light %s, %s, loaded %s, %s", self._backend, light_step, light_chunk, step, chunk)
        expected_cells = load.cells(load.context_tokens, load.calls, split_kv=self._split)
        chunk_ms = chunk.at(expected_cells, light_chunk)
        step_ms = step.at(expected_cells, light_step)
        return chunk_ms * _CHUNKS_A_TURN + step_ms * _REPLY_TOKENS / load.talkers

    def _has_room(self, sequence_id: int) -> bool:
        return self._held[sequence_id] + self._load.chunk_tokens <= self._load.context_tokens

    def _copy_to(self, sequence_ids: range) -> int:
        """Give sequences what the first one holds; returns how many hold it when the time for that is up.

        Those that talk are among them at any rate.
        """
        started_s = self._clock()
        state = self._backend.seq_save(0)
        for sequence_id in sequence_ids:
            if sequence_id >= self._load.talkers and self._clock() - started_s > _COPY_S:
                return sequence_id
            self._backend.seq_restore(sequence_id, state)
            self._held[sequence_id] = self._held[0]
        return sequence_ids.stop

    def _step(self, calls: int) -> _Timed:
        """Time single-token steps of all talkers beside what ``calls`` hold."""
        cells = self._cells(self._held[0] + 1, calls)
        talkers = [(i, 1) for i in range(self._load.talkers)]
        return _Timed(cells, self._least_ms(self._decode(talkers, True) for _ in range(_STEPS)))

    def _chunk(self, sequence_id: int, calls: int, *, most: int) -> _Timed:
        """Time at most so many chunks of one call's prompt beside what ``calls`` hold."""
        cells = self._cells(self._held[sequence_id] + self._load.chunk_tokens, calls)
        return _Timed(cells, self._least_ms(self._decode_chunk(sequence_id) for _ in range(most)))

    def _cells(self, context_tokens: int, calls: int) -> int:
        return self._load.cells(context_tokens, calls, split_kv=self._split)

    def _least_ms(self, times_ms: Iterable[float]) -> float:
        """Return the least of times that are taken one by one, of at least one, until the time for that is up."""
        started_s = self._clock()
        least_ms = float("inf")
        for ms in times_ms:
            least_ms = min(least_ms, ms)
            if self._clock() - started_s > _REPEAT_S:
                break
        return least_ms

    def _decode_chunk(self, sequence_id: int) -> float:
        return self._decode([(sequence_id, self._load.chunk_tokens)], False)

    def _decode(self, runs: list[tuple[int, int]], wants_logits: bool) -> float:
        """Decode some tokens after what each sequence holds; returns the milliseconds that took."""
        entries = [BatchEntry(i, self._held[i], self._tokens[:tokens], wants_logits) for i, tokens in runs]
        started_s = self._clock()
        self._backend.decode(entries)
        taken_ms = (self._clock() - started_s) * 1e3
        for sequence_id, tokens in runs:
            self._held[sequence_id] += tokens
        return taken_ms
