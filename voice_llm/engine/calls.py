"""CallTable: the open calls, their sequences, and what of their KV can be used again."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from statistics import median_low
from typing import Final

from ..backend.base import Backend, SavedState
from ..config.engine import EngineConfig
from ..errors import AtCapacityError, BackendError, EngineError, WrongStateError
from .admission import Admission
from .cost import CostModel
from .counters import BatcherCounters
from .load import CallLoad
from .pool import ContextPool, KVSequence
from .prefix import IsolationKey, PrefixStore, common_prefix_length
from .request import LiveCall, Request, RequestState

__all__ = ["CallTable"]

logger = logging.getLogger(__name__)

# A restore costs about as much as decoding this many tokens, so less is not worth one.
_MIN_RESTORE_TOKENS: Final = 8
# Calls that nobody ends are kept up to so many times the calls that may be open; they hold host memory only.
_SOFT_CALLS_PER_CALL: Final = 8
# A turn decodes at least so much of its prompt: one token for fresh logits, and not a lone one (see ``scheduler``).
_FRESH_TOKENS: Final = 2
# So many prompts that are not computed yet are a queue.
_LEAST_QUEUE: Final = 3


class CallTable:
    """Opens, parks and closes calls; the only place where sequences are taken and given back.

    Args:
        backend: Holds the KV.
        config: Bounds of host memory.
        prefixes: Saved states of shared prefixes.
        counters: Counts restores, parkings and refusals.
        cost: Predicts what prompts take.
        max_calls: Most open calls, and most one-shot inferences beside them.

    Attributes:
        load: Measures what the open calls bring; told of their work by the batcher.
        admission: Decides by it whether one more may be opened.
    """

    def __init__(
        self,
        backend: Backend,
        config: EngineConfig,
        prefixes: PrefixStore,
        counters: BatcherCounters,
        cost: CostModel,
        *,
        max_calls: int,
    ) -> None:
        self._backend = backend
        self._prefixes = prefixes
        self._counters = counters
        self._cost = cost
        self._max_calls = max_calls
        self._parked_bytes_limit = config.parked_bytes
        self._calls: dict[tuple[str | None, str], LiveCall] = {}
        self._one_shots = 0
        self.pool = ContextPool(backend.info.sequences)
        self.load = CallLoad()
        self.admission = Admission(self.load, config.admission)

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[LiveCall]:
        return iter(self._calls.values())

    @property
    def open_calls(self) -> int:
        """How many calls are open, without one-shot inferences and soft calls at rest; may be read from any thread."""
        return sum(call.occupies for call in list(self._calls.values()))

    @property
    def max_calls(self) -> int:
        """Most open calls."""
        return self._max_calls

    @property
    def parked_bytes(self) -> int:
        """Host memory that parked calls take, in bytes."""
        return sum(c.parked[0].nbytes for c in self if c.parked)

    def open(
        self, call_id: str, key: IsolationKey, now_s: float, *, one_shot: bool = False, soft: bool = False
    ) -> LiveCall:
        """Admit a call; see ``DynamicBatcher.open_call``."""
        name = (key.tenant, call_id)
        if name in self._calls:
            raise WrongStateError(f"a call {call_id!r} of this tenant is already open")
        held = not one_shot and not soft
        if one_shot and self._one_shots >= self._max_calls:
            raise self._full(f"{self._max_calls} one-shot inferences are open already; wait for one of them")
        if soft and sum(call.soft for call in self) >= self._max_calls * _SOFT_CALLS_PER_CALL:
            raise self._full("too many calls without an end are kept; drop the one that was quiet for longest")
        if held:
            self.check_room()
            self._check_forecast(now_s)
        # The opening of a one-shot is no other call's, so it is not offered to the prefix store.
        call = LiveCall(call_id, key, last_active_s=now_s, seeded=one_shot, one_shot=one_shot, soft=soft)
        self._calls[name] = call
        self._one_shots += one_shot
        if held:
            self.load.opened(call, now_s)
        return call

    def check_room(self) -> None:
        """Check that one more call may be open, or one more soft one in a turn.

        Raises:
            AtCapacityError: All places are taken.
        """
        if self.open_calls >= self._max_calls:
            raise self._full(
                f"all {self._max_calls} calls are taken; close one, or raise the number of sequences (--calls)"
            )

    def _pending_s(self) -> float:
        """Return what the prompts of turns and of calls that have just been opened will take.

        Each counts like the middle one, since a long prompt does not hold up short ones; one or two are no queue.
        """
        waiting = [c for c in self if not c.one_shot and (c.in_turn or self.load.is_opening(c))]
        ms = [self._prompt_ms(c, c.request) for c in waiting if c.request is not None and c.request.remaining_tokens]
        return len(ms) * median_low(ms) / 1e3 if len(ms) >= _LEAST_QUEUE else 0.0

    def _prompt_ms(self, call: LiveCall, request: Request) -> float:
        """Predict what is left of a prompt; of one that is still queued, what the cache does not hold."""
        cached = request.computed_tokens
        if request.state is RequestState.QUEUED:
            held = call.sequence.tokens if call.sequence is not None else call.parked[1] if call.parked else []
            match = self._prefixes.find(call.key, request.prompt)
            cached = max(common_prefix_length(held, request.prompt), match.length if match is not None else 0)
        return self._cost.prefill_ms(len(request.prompt) - cached, cached)

    def _full(self, message: str) -> AtCapacityError:
        self._counters.refused_by_limit += 1
        return AtCapacityError(message)

    def _check_forecast(self, now_s: float) -> None:
        try:
            self.admission.check(now_s, pending_s=self._pending_s())
        except AtCapacityError:
            self._counters.refused_by_forecast += 1
            raise

    def close(self, call: LiveCall, now_s: float) -> None:
        """Free what the call holds; once more is harmless."""
        self.admission.note_held(now_s)
        self.load.closed(call, now_s)
        call.closed = True
        call.parked = None
        if call.sequence is not None:
            self._backend.seq_drop(call.sequence.id)
            self.pool.release(call.sequence)
            call.sequence = None
        if self._calls.get((call.key.tenant, call.call_id)) is call:
            del self._calls[call.key.tenant, call.call_id]
            self._one_shots -= call.one_shot

    def forget(self, call: LiveCall) -> None:
        """Empty the call's sequence; the next prompt is computed from its start."""
        if call.sequence is not None:
            self._backend.seq_drop(call.sequence.id)
            call.sequence.tokens = []

    def provide_sequence(self, call: LiveCall) -> bool:
        """See that the call holds a sequence, with its parked KV in it; False where it has to wait for one.

        The idle call that has been quiet for longest is parked to make room, soft ones first, never one with a request.
        """
        if call.sequence is not None:
            return True
        if not self.pool.free and not self._park_one():
            return False
        call.sequence = self.pool.acquire(call.call_id)
        if call.parked is not None:
            state, tokens = call.parked
            call.parked = None
            self._restore(call.sequence, state, tokens)
        return True

    def reuse(self, call: LiveCall, prompt: list[int], *, needs_logits: bool) -> int:
        """Bring the call's sequence to a prefix of ``prompt``; returns how many tokens need not be decoded.

        What the sequence already shares is kept; where a saved prefix reaches further, it is restored. With
        ``needs_logits`` the last tokens are left to decode, since logits of an earlier batch are gone.
        """
        sequence = call.sequence
        if sequence is None:
            raise EngineError(f"call {call.call_id!r} holds no sequence")
        usable = max(0, len(prompt) - _FRESH_TOKENS) if needs_logits else len(prompt)
        shared = min(common_prefix_length(sequence.tokens, prompt), usable)
        match = self._prefixes.find(call.key, prompt)
        if match is not None and min(match.length, usable) >= shared + _MIN_RESTORE_TOKENS:
            restored = self._restore(sequence, match.state, list(match.tokens))
            shared = min(match.length, usable) if restored else 0
            self._counters.restored_tokens += shared
        if shared == len(prompt):
            # A prefill that is a prefix of what is held: the tail may still be of use to the turn that follows.
            return shared
        if shared < len(sequence.tokens):
            kept = self._backend.seq_trim(sequence.id, shared)
            sequence.tokens = sequence.tokens[:shared] if kept else []
            shared = shared if kept else 0
        return shared

    def offer_prefix(self, call: LiveCall) -> None:
        """After a call's first prompt: keep its state, so that the next call with the same opening starts from it."""
        if call.seeded or call.sequence is None:
            return
        call.seeded = True
        if self._prefixes.would_add(call.key, call.sequence.tokens):
            self.save_prefix(call, call.key)

    def save_prefix(self, call: LiveCall, key: IsolationKey) -> None:
        """Keep the state of the call's sequence under ``key``."""
        if call.sequence is not None:
            self._prefixes.add(key, call.sequence.tokens, self._backend.seq_save(call.sequence.id))

    def _restore(self, sequence: KVSequence, state: SavedState, tokens: list[int]) -> bool:
        """Put a saved state into a sequence; where that fails it is empty, and the prompt is computed instead."""
        sequence.tokens = []
        try:
            self._backend.seq_restore(sequence.id, state)
        except BackendError as e:
            logger.warning("a saved state is not used: %s", e)
            return False
        sequence.tokens = tokens
        return True

    def _park_one(self) -> bool:
        idle = [c for c in self if c.sequence is not None and c.request is None]
        if not idle:
            return False
        call = min(idle, key=lambda c: (not c.soft, c.last_active_s))
        sequence = call.sequence
        if sequence is None:
            return False
        if sequence.tokens:
            state = self._backend.seq_save(sequence.id)
            if self.parked_bytes + state.nbytes <= self._parked_bytes_limit:
                call.parked = (state, sequence.tokens)
                self._counters.parked += 1
        self._backend.seq_drop(sequence.id)
        self.pool.release(sequence)
        call.sequence = None
        return True

    def check_integrity(self, requests: Iterable[Request]) -> None:
        """See ``DynamicBatcher.check_integrity``."""
        self.pool.check_integrity(self._backend.seq_length)
        held = {id(s) for s in self.pool.held}
        mine = {id(c.sequence) for c in self if c.sequence is not None}
        if held != mine:
            raise EngineError(f"{len(held)} sequences are held, but calls know of {len(mine)}: {self.pool!r}")
        running = {id(r) for r in requests}
        known = {id(c.request) for c in self if c.request is not None}
        if running != known:
            raise EngineError(f"{len(running)} requests run, but calls know of {len(known)}")
        for call in self:
            if call.closed or (call.parked is not None and call.sequence is not None):
                raise EngineError(f"call {call.call_id!r} is closed or both parked and in the cache")
