"""Scheduler: what the next step does. Pure: it sees requests, costs and the time, and returns a plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .cost import CostModel, DecodeShape
from .line import Line
from .request import Request, RequestKind, RequestState
from .urgency import Pace, Talkers

__all__ = ["Plan", "PrefillChunk", "Scheduler"]

# Matrix kernels work on blocks of rows; a chunk that ends inside one wastes the rest of it.
_BLOCK_TOKENS: Final = 16
_MIN_CHUNK_TOKENS: Final = 8
# Still fewer where somebody waits for the next token, and a long context makes each of the prompt's dear; with two, a
# lone one could be left.
_FEWEST_TOKENS: Final = 3
# While replies have to go on and nobody waits for an answer, early prefill gets one step in so many; and turns, where
# all that replies could do was not enough.
_HINT_EVERY: Final = 3
_PROMPT_EVERY: Final = 4
# A step may become so much longer by a reply that rides along, and so many are tried.
_NEARLY_FREE: Final = 1.1
_MOST_RIDERS: Final = 8
# Whoever arrives waits for the step that runs: those that only use idle room are so much shorter.
_HINT_SHARE: Final = 0.5
# Prompts get at least so much of a step, however long the one of the replies is.
_LEAST_SHARE: Final = 0.3
# Every chunk of a prompt reads all of the model's weights once, so that large ones cost less. Where all replies can
# wait, a step of prompts may be so many times as long, and takes such a share of what they can wait.
_LONG_STEP: Final = 3.0
_SPARE_SHARE: Final = 0.5


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

    Attributes:
        decode: Replies that get a token, by sequence.
        prefill: Pieces of prompts.
        wake_s: Where there is nothing to do now: when there will be, without anything new; None for never.
    """

    decode: tuple[Request, ...] = ()
    prefill: tuple[PrefillChunk, ...] = ()
    wake_s: float | None = None

    def __bool__(self) -> bool:
        return bool(self.decode or self.prefill)


class Scheduler:
    """Schedules by what callers hear: who hears nothing yet comes first, who has enough to hear can wait.

    Order of claims: replies whose caller is about to run out of speech; turns that have not spoken, by their place in
    the line; early prefill; replies whose callers have enough to hear. Replies that can wait ride along where they are
    nearly free, and go on together where nothing more urgent is left. Replies without pacing always go on, as in plain
    continuous batching. Every step is bounded, and whoever has to go on waits for one step of prompts at most. Where
    no reply has to, a step of prompts may be three times as long.

    Args:
        max_step_ms: Longest step, by the cost model's prediction.
        max_batch_tokens: Most tokens of a step.
        split_kv: Whether rows of adjacent sequences share a micro-batch (see ``BackendInfo``).
        max_ahead_s: How much speech a caller may have in store before nothing more is decoded ahead of it.
    """

    def __init__(
        self, *, max_step_ms: float, max_batch_tokens: int, split_kv: bool, max_ahead_s: float = float("inf")
    ) -> None:
        self._max_step_ms = max_step_ms
        self._max_batch_tokens = max_batch_tokens
        self._split_kv = split_kv
        self._max_ahead_s = max_ahead_s
        self._decodes_since_prefill = 0
        self._prefills = 0

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
        talkers = Talkers.at(now_s, talking, self._pace(talking, turns, hints, cost))
        if turns:
            line = Line.of(now_s, [*turns, *talkers.unspoken], cost)
            if self._prompts_may(line, talkers):
                prompts = line.prompts(overdue_first=self._every_other())
                return self._prefill(prompts, self._prompts_ms(talkers), talkers, cost)
        elif hints and self._hints_may(talkers):
            return self._early_prefill(hints, talkers, cost)
        rows = self._rows(talkers, cost)
        if rows:
            self._decodes_since_prefill += 1
        return Plan(decode=rows, wake_s=None if rows or not talkers.resting else talkers.rest_until_s)

    def _pace(self, talking: list[Request], turns: list[Request], hints: list[Request], cost: CostModel) -> Pace:
        step_ms = min(self._decode_ms(talking, cost), self._max_step_ms) if talking else 0.0
        turns_ms = sum(cost.prefill_ms(turn.remaining_tokens, turn.computed_tokens) for turn in turns)
        return Pace(
            step_s=step_ms / 1e3,
            prompt_step_s=self._max_step_ms / 1e3 if turns or hints else 0.0,
            # Early prefill goes on for as long as people speak.
            prompts_s=turns_ms / 1e3 if turns else float("inf"),
            max_ahead_s=self._max_ahead_s,
        )

    def _prompts_ms(self, talkers: Talkers) -> float:
        """How long a step of prompts may be."""
        if talkers.urgent:
            return self._max_step_ms
        spare_ms = talkers.spare_s * 1e3 * _SPARE_SHARE
        return max(self._max_step_ms, min(self._max_step_ms * _LONG_STEP, spare_ms))

    def _prompts_may(self, line: Line, talkers: Talkers) -> bool:
        """Whether the next step is one of prompts; never two in a row where a reply has to go on."""
        if not talkers.urgent:
            return True
        if not self._decodes_since_prefill:
            return False
        if talkers.silent:
            return self._decodes_since_prefill >= _PROMPT_EVERY
        if talkers.unspoken and line.first.state is RequestState.TALKING:
            return line.overdue_prompts and self._decodes_since_prefill >= _PROMPT_EVERY
        return True

    def _hints_may(self, talkers: Talkers) -> bool:
        """Whether the next step is one of early prefill: in room that nobody needs, and now and then beside replies."""
        if talkers.unspoken or talkers.silent:
            return False
        return not talkers.pressing or self._decodes_since_prefill >= _HINT_EVERY

    def _rows(self, talkers: Talkers, cost: CostModel) -> tuple[Request, ...]:
        """Take all that have to go on, or the most urgent of them, and those that can wait where that costs little."""
        rows = [
            *sorted(talkers.silent, key=_last_token),
            *sorted(talkers.unspoken, key=_arrival),
            *sorted(talkers.pressing, key=_last_token),
        ]
        if not talkers.unspoken:
            rows = self._together(rows, talkers.patient, cost)
        elif len(rows) < self._max_batch_tokens:
            rows += self._nearly_free(rows, talkers.patient, cost)
        rows = rows[: self._max_batch_tokens]
        while len(rows) > 1 and self._decode_ms(rows, cost) > self._max_step_ms:
            rows = rows[: max(1, len(rows) * 3 // 4)]
        return tuple(sorted(rows, key=lambda r: r.sequence.id))

    def _together(self, rows: list[Request], patient: list[Request], cost: CostModel) -> list[Request]:
        """Let those ride along who can wait: tokens are cheaper together, and nobody waits for a first word.

        Some numbers of rows are odd, and dear: then only as many as take the least time each; the others have their
        turn soon after.
        """
        everyone = [*rows, *patient][: self._max_batch_tokens]
        if len(everyone) == len(rows) or not self._split_kv:
            return everyone
        context = max(len(r.sequence.tokens) for r in everyone)
        best = everyone[: max(len(rows), cost.best_rows(len(everyone), context))]
        dearer = self._decode_ms(best, cost) * len(everyone) > self._decode_ms(everyone, cost) * len(best)
        return everyone if dearer else best

    def _nearly_free(self, rows: list[Request], patient: list[Request], cost: CostModel) -> list[Request]:
        """Return those of ``patient`` that cost nearly nothing here: they close a gap, or rows are cheap."""
        riders: list[Request] = []
        ms = self._decode_ms(rows, cost)
        for request in patient[: min(_MOST_RIDERS, self._max_batch_tokens - len(rows))]:
            with_it_ms = self._decode_ms([*rows, *riders, request], cost)
            if with_it_ms <= ms * _NEARLY_FREE:
                riders.append(request)
                ms = with_it_ms
        return riders

    def _decode_ms(self, rows: Sequence[Request], cost: CostModel) -> float:
        contexts = sorted((r.sequence.id, len(r.sequence.tokens)) for r in rows)
        return cost.decode_ms(DecodeShape.of(contexts, split_kv=self._split_kv))

    def _prefill(self, ordered: Sequence[Request], budget_ms: float, talkers: Talkers, cost: CostModel) -> Plan:
        """Fill a step with prompt tokens, in that order.

        Where somebody waits for the next token itself, this step and that of the replies together are as long as a step
        may be. Callers who hear something already have been given time for a whole step of prompts (see ``Talkers``).
        """
        least_tokens = _MIN_CHUNK_TOKENS
        if talkers.unspoken or any(r.work.speech is None and not r.call.one_shot for r in talkers.pressing):
            room_ms = self._max_step_ms - self._decode_ms(talkers.urgent, cost)
            budget_ms = min(budget_ms, max(room_ms, self._max_step_ms * _LEAST_SHARE))
            least_tokens = _FEWEST_TOKENS
        self._decodes_since_prefill = 0
        return Plan(prefill=self._chunks(ordered, budget_ms, least_tokens, cost))

    def _early_prefill(self, hints: list[Request], talkers: Talkers, cost: CostModel) -> Plan:
        """Fill a shorter step: what is done soonest first, and every other time what came first."""
        shortest_first = self._every_other()
        ordered = sorted(hints, key=lambda r: (r.remaining_tokens if shortest_first else 0, r.arrival_s))
        block_ms = cost.prefill_ms(_BLOCK_TOKENS + 1, ordered[0].computed_tokens)
        budget_ms = min(max(self._max_step_ms * _HINT_SHARE, block_ms), self._max_step_ms)
        return self._prefill(ordered, budget_ms, talkers, cost)

    def _every_other(self) -> bool:
        """Whether this step of prompts is one of those that keep everything moving."""
        self._prefills += 1
        return self._prefills % 2 == 0

    def _chunks(
        self, ordered: Sequence[Request], budget_ms: float, least_tokens: int, cost: CostModel
    ) -> tuple[PrefillChunk, ...]:
        chunks: list[PrefillChunk] = []
        left_ms, left_tokens = budget_ms, self._max_batch_tokens
        for request in ordered:
            fits = cost.prefill_tokens(left_ms, request.computed_tokens)
            if chunks and min(fits, left_tokens) < min(_MIN_CHUNK_TOKENS, request.remaining_tokens):
                break
            tokens = _chunk_size(request.remaining_tokens, max(fits, least_tokens), left_tokens)
            chunks.append(PrefillChunk(request, tokens))
            left_ms -= cost.prefill_ms(tokens, request.computed_tokens)
            left_tokens -= tokens
            if left_tokens <= 0 or left_ms <= 0:
                break
        return tuple(chunks)


def _arrival(request: Request) -> tuple[float, int]:
    return (request.arrival_s, request.sequence.id)


def _last_token(request: Request) -> tuple[float, int]:
    return (request.work.last_token_s, request.sequence.id)


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
