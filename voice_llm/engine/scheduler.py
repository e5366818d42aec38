"""Scheduler: what the next step does. Pure: it sees requests, costs and the time, and returns a plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .cost import CostModel, DecodeShape
from .request import Request, RequestKind, RequestState

__all__ = ["Plan", "PrefillChunk", "Scheduler"]

# Matrix kernels work on blocks of rows; a chunk that ends inside one wastes the rest of it.
_BLOCK_TOKENS: Final = 16
_MIN_CHUNK_TOKENS: Final = 8
# While others talk and nobody waits for an answer, early prefill gets one step in so many.
_HINT_EVERY: Final = 3


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """The next ``tokens`` prompt tokens of a request."""

    request: Request
    tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: single tokens of talking calls, or prefill chunks.

    Both are never mixed, since rows with different token
    counts would split the batch anyway.
    """

    decode: tuple[Request, ...] = ()
    prefill: tuple[PrefillChunk, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.decode or self.prefill)


class Scheduler:
    """Talking calls first, then prompts of turns, then early prefill; every step is bounded.

    After each step of talking calls at most one step of prefill follows, so no talking call waits longer than two
    steps. A turn's place is its arrival plus the time that its prompt needs: short prompts pass long ones, and nobody
    is passed for ever.

    Args:
        max_step_ms: Longest step, by the cost model's prediction.
        max_batch_tokens: Most tokens of a step.
        split_kv: Whether rows of adjacent sequences share a micro-batch (see ``BackendInfo``).
    """

    def __init__(self, *, max_step_ms: float, max_batch_tokens: int, split_kv: bool) -> None:
        self._max_step_ms = max_step_ms
        self._max_batch_tokens = max_batch_tokens
        self._split_kv = split_kv
        self._decodes_since_prefill = 0
        self._next_row = 0

    def plan(self, now_s: float, requests: Iterable[Request], cost: CostModel) -> Plan:
        """Choose the next step.

        Args:
            now_s: Present time on the engine's clock.
            requests: Everything that has a sequence and is not done.
            cost: Predicts step times.
        """
        talking: list[Request] = []
        turns: list[Request] = []
        hints: list[Request] = []
        for request in requests:
            if request.state is RequestState.TALKING:
                talking.append(request)
            elif request.kind is RequestKind.TURN:
                turns.append(request)
            else:
                hints.append(request)
        prefill_due = (turns and self._decodes_since_prefill) or (
            hints and not turns and self._decodes_since_prefill >= _HINT_EVERY
        )
        if (turns or hints) and (not talking or prefill_due):
            self._decodes_since_prefill = 0
            return Plan(prefill=self._chunks(turns or hints, cost))
        if talking:
            self._decodes_since_prefill += 1
            return Plan(decode=self._rows(talking, cost))
        return Plan()

    def _rows(self, talking: list[Request], cost: CostModel) -> tuple[Request, ...]:
        """Take all talking calls, or in turn as many as a step's time allows."""
        if len(talking) == 1:
            return (talking[0],)
        rows = sorted(talking, key=lambda r: r.sequence.id)
        if len(rows) > self._max_batch_tokens or self._decode_ms(rows, cost) > self._max_step_ms:
            start = next((i for i, r in enumerate(rows) if r.sequence.id >= self._next_row), 0)
            rows = rows[start:] + rows[:start]
            rows = rows[: self._max_batch_tokens]
            while len(rows) > 1 and self._decode_ms(rows, cost) > self._max_step_ms:
                rows = rows[: max(1, len(rows) * 3 // 4)]
            self._next_row = rows[-1].sequence.id + 1
        return tuple(rows)

    def _decode_ms(self, rows: Sequence[Request], cost: CostModel) -> float:
        contexts = sorted((r.sequence.id, len(r.sequence.tokens)) for r in rows)
        return cost.decode_ms(DecodeShape.of(contexts, split_kv=self._split_kv))

    def _chunks(self, waiting: list[Request], cost: CostModel) -> tuple[PrefillChunk, ...]:
        """Fill a step with prompt tokens, most urgent first."""

        def place(request: Request) -> float:
            whole_ms = cost.prefill_ms(len(request.prompt) - request.cached_tokens, request.cached_tokens)
            return request.arrival_s + whole_ms / 1e3

        chunks: list[PrefillChunk] = []
        left_ms, left_tokens = self._max_step_ms, self._max_batch_tokens
        for request in sorted(waiting, key=place):
            fits = cost.prefill_tokens(left_ms, request.computed_tokens)
            if chunks and min(fits, left_tokens) < min(_MIN_CHUNK_TOKENS, request.remaining_tokens):
                break
            tokens = _chunk_size(request.remaining_tokens, max(fits, _MIN_CHUNK_TOKENS), left_tokens)
            chunks.append(PrefillChunk(request, tokens))
            left_ms -= cost.prefill_ms(tokens, request.computed_tokens)
            left_tokens -= tokens
            if left_tokens <= 0 or left_ms <= 0:
                break
        return tuple(chunks)


def _chunk_size(remaining: int, fits: int, room: int) -> int:
    """Return the chunk's tokens: all that is left, or whole blocks; neither the chunk nor the rest is a lone token.

    llama.cpp takes another path for a single row, whose rounding differs from that of two and more: with lone tokens
    the same prompt would give other logits depending on what else is going on.
    """
    most = min(fits, room)
    if remaining <= most:
        return remaining
    tokens = max(most - most % _BLOCK_TOKENS, min(most, _BLOCK_TOKENS))
    return tokens - 1 if remaining - tokens == 1 and tokens > 2 else tokens
