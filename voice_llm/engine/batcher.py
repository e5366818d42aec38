"""DynamicBatcher: the step. Plan, decode, apply; one ``Backend.decode`` advances every call that the plan names.

Sans-I/O: whoever drives it calls ``step`` until ``has_work`` is false, and takes the events that come out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final
from uuid import uuid4

from ..backend.base import Backend, BatchEntry
from ..config.engine import EngineConfig
from ..errors import (
    BackendError,
    CallBusyError,
    ContextFullError,
    ContextTooLongError,
    InvalidRequestError,
    VoiceLLMError,
    WrongStateError,
)
from ..events import Finished, FinishReason, Prefilled, SentenceChunk, TextDelta, Thought, ToolCall
from ..observer import Observer
from ..text import TextOutput
from .bookkeeping import StepBook
from .calls import CallTable
from .cost import CostModel
from .counters import BatcherCounters
from .placement import Placement
from .prefix import IsolationKey, PrefixStore
from .request import LiveCall, Request, RequestKind, RequestState
from .scheduler import Plan, Scheduler
from .step import CoreEvent, Failed, Step

__all__ = ["DynamicBatcher"]

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S: Final = 0.01


class DynamicBatcher:
    """True continuous batching over one backend.

    A request that arrives while others talk joins the next step. Cancelling takes effect at once: in the queue, between
    prefill chunks and between tokens. Not thread-safe: one owner drives it.

    Args:
        backend: The model; owned by the driver, who closes it.
        config: Sizes and bounds.
        clock: Monotonic seconds; injected, so that tests run on virtual time.
        max_calls: Most open calls; None for as many as there are sequences.
        observer: Is told of steps, tokens and turns.
    """

    def __init__(
        self,
        backend: Backend,
        config: EngineConfig,
        *,
        clock: Callable[[], float],
        max_calls: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        info = backend.info
        self._backend = backend
        self._clock = clock
        self._observer = observer or Observer()
        self.cost = CostModel()
        self._book = StepBook(self.cost, self._observer, split_kv=info.split_kv)
        self.prefixes = PrefixStore(config.saved_state_bytes)
        self.calls = CallTable(
            backend, config, self.prefixes, self.counters, self.cost, max_calls=max_calls or info.sequences
        )
        self._max_copy_ms = config.max_step_ms / 4
        self._placement = Placement(backend, self.calls.pool, self.cost, self.counters, max_ms=config.max_step_ms)
        self._scheduler = Scheduler(
            max_step_ms=config.max_step_ms,
            max_batch_tokens=info.max_batch_tokens,
            split_kv=info.split_kv,
            max_ahead_s=config.max_ahead_s,
        )
        self._queued: list[Request] = []
        self._running: list[Request] = []
        self._out: list[CoreEvent] = []
        self._wake_s: float | None = None

    def __repr__(self) -> str:
        return f"<DynamicBatcher [{len(self.calls)} calls | {len(self._queued)} queued, {len(self._running)} running]>"

    @property
    def counters(self) -> BatcherCounters:
        """What was done since the start."""
        return self._book.counters

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has something to do or to hand out."""
        return bool(self._queued or self._running or self._out)

    @property
    def wake_s(self) -> float | None:
        """Where the last step had nothing to do: when there will be something, on the clock; None for at once."""
        return self._wake_s

    def open_call(self, call_id: str, key: IsolationKey, *, one_shot: bool = False, soft: bool = False) -> LiveCall:
        """Admit a call, or a one-shot inference beside the calls, of which there may be as many again.

        A soft call is one that nobody ends: it is admitted turn by turn, and parked first where sequences are short.

        Raises:
            AtCapacityError: Too many calls are open.
            WrongStateError: A call of that id and tenant is open already.
        """
        return self.calls.open(call_id, key, self._clock(), one_shot=one_shot, soft=soft)

    def close_call(self, call: LiveCall) -> None:
        """End a call: its request is cancelled, its sequence and parked state are freed; once more is harmless."""
        if call.request is not None:
            self.cancel(call.request)
        self.calls.close(call, self._clock())

    def submit(self, request: Request) -> None:
        """Queue a turn or a prefill. A prefill that still runs for the same call gives way.

        Raises:
            InvalidRequestError: A turn without a prompt.
            WrongStateError: The call is closed.
            CallBusyError: A turn is running for the call.
            ContextTooLongError: Prompt and reply do not fit.
            AtCapacityError: A soft call's turn finds as many calls as may be.
        """
        call = request.call
        if request.turn and not request.prompt:
            raise InvalidRequestError("the prompt is empty", param="messages")
        if call.closed:
            raise WrongStateError(f"call {call.call_id!r} is closed")
        if call.request is not None and call.request.kind is RequestKind.TURN:
            raise CallBusyError(f"call {call.call_id!r} already has a running turn")
        reserved = request.turn.max_tokens if request.turn else 0
        if len(request.prompt) + reserved > self._backend.info.context_per_call:
            raise ContextTooLongError(
                prompt_tokens=len(request.prompt),
                max_tokens=reserved,
                context_tokens=self._backend.info.context_per_call,
            )
        if call.soft and request.turn:
            self.calls.check_room()
        if call.request is not None:
            self.cancel(call.request)
        call.request = request
        self._queued.append(request)
        self.calls.load.submitted(request)

    def cancel(
        self, request: Request, reason: FinishReason = FinishReason.CANCELLED, *, asked_s: float | None = None
    ) -> None:
        """End a request now; a finished one stays as it is.

        Args:
            request: Which.
            reason: Why.
            asked_s: When it was asked for, where that was earlier and elsewhere.
        """
        if request.state is not RequestState.DONE:
            self._finish(request, reason)
            if asked_s is not None:
                self._observer.cancelled(self._clock() - asked_s)

    def step(self) -> list[CoreEvent]:
        """Do one bounded piece of work and return what came of it, and of cancels since the last step."""
        started_s = self._clock()
        self._offer_openings()
        self._start_queued(started_s)
        copies_ms = (self._clock() - started_s) * 1e3
        step = self._prepare(self._scheduler.plan(started_s, self._running, self.cost))
        self._wake_s = step.plan.wake_s
        if self._wake_s is not None and self._queued:
            # Who waits for a place must not sleep along with replies that rest.
            self._wake_s = min(self._wake_s, started_s + _LOOK_AGAIN_S)
        if step.entries:
            self._run(step)
        ended_s = self._clock()
        took_ms = (ended_s - started_s) * 1e3
        self.calls.load.stepped(step.entries, step.requests, took_ms, ended_s)
        self._book.step_over(step.entries, took_ms, decoded=bool(step.plan.decode), copies_ms=copies_ms)
        out, self._out = self._out, []
        return out

    def abandon(self, error: VoiceLLMError) -> list[CoreEvent]:
        """Fail everything after an unforeseen error: sequences are emptied, calls stay open."""
        for request in [*self._queued, *self._running]:
            self._fail(request, error)
        for call in self.calls:
            try:
                self.calls.forget(call)
            except Exception:
                # Whoever waits has to be told, even by a backend that is past emptying a sequence.
                logger.exception("a sequence cannot be emptied")
        out, self._out = self._out, []
        return out

    def check_integrity(self) -> None:
        """Check pool, calls and requests against each other and the backend.

        Raises:
            EngineError: Something was lost or is held twice.
        """
        self.calls.check_integrity([*self._queued, *self._running])

    def _start_queued(self, now_s: float) -> None:
        """Give queued requests their sequence and find out what of their prompt is in the cache already."""
        # Where sequences are short, a caller's turn takes one before a one-shot does, and that before an early prefill.
        for request in sorted(self._queued, key=lambda r: (r.kind is not RequestKind.TURN, r.call.one_shot)):
            if (self._clock() - now_s) * 1e3 > self._max_copy_ms:
                break  # restores and moves take time too; the rest starts in the next step
            needs_logits = request.kind is RequestKind.TURN
            try:
                if not self.calls.provide_sequence(request.call) and not self._take_from_hint(request):
                    continue
                request.cached_tokens = self.calls.reuse(request.call, request.prompt, needs_logits=needs_logits)
                if needs_logits:
                    self._bring_near_talkers(request)
            except BackendError as e:
                self._fail(request, e)
                continue
            request.computed_tokens = request.cached_tokens
            request.started_s = now_s
            request.move(RequestState.PREFILLING)
            self._queued.remove(request)
            self._running.append(request)
            if not request.remaining_tokens:
                self._prompt_done(request, now_s)

    def _bring_near_talkers(self, turn: Request) -> None:
        talkers = [r.sequence for r in self._running if r.kind is RequestKind.TURN]
        hinted = [r.sequence for r in self._running if r.kind is RequestKind.PREFILL]
        self._placement.bring_near(turn.sequence, talkers, busy=hinted)

    def _take_from_hint(self, turn: Request) -> bool:
        """Let a turn that finds no sequence have one that only an early prefill is using."""
        hints = [r for r in self._running if r.kind is RequestKind.PREFILL]
        if turn.kind is not RequestKind.TURN or not hints:
            return False
        self.cancel(hints[-1])
        return self.calls.provide_sequence(turn.call)

    def _prepare(self, plan: Plan) -> Step:
        step = Step(plan)
        for request in plan.decode:
            sequence = request.sequence
            token = request.work.generated[-1]
            step.entries.append(BatchEntry(sequence.id, len(sequence.tokens), (token,), True))
            step.requests.append(request)
        for chunk in plan.prefill:
            request, start = chunk.request, chunk.request.computed_tokens
            tokens = request.prompt[start : start + chunk.tokens]
            wants_logits = request.kind is RequestKind.TURN and chunk.tokens == request.remaining_tokens
            step.entries.append(BatchEntry(request.sequence.id, start, tokens, wants_logits))
            step.requests.append(request)
        return step

    def _run(self, step: Step) -> None:
        started_s = self._clock()
        try:
            micro_batches = self._backend.decode(step.entries)
        except ContextFullError:
            self._retry_apart(step)
            return
        except BackendError as e:
            self._lose(step, e)
            return
        decoded_s = self._clock()
        took_ms = (decoded_s - started_s) * 1e3
        if step.plan.decode:
            self._book.decoded(step.entries, micro_batches, took_ms)
        else:
            self._book.prefilled(step.entries, step.requests, took_ms)
        self._apply(step, decoded_s)
        self.counters.sample_ms += (self._clock() - decoded_s) * 1e3

    def _retry_apart(self, step: Step) -> None:
        """Decode the entries one by one, to name the request that does not fit."""
        for entry, request in zip(step.entries, step.requests, strict=True):
            single = Step(step.plan, [entry], [request])
            try:
                self._backend.decode(single.entries)
            except BackendError as e:
                self._lose(single, e)
            else:
                self._apply(single, self._clock())

    def _lose(self, step: Step, error: BackendError) -> None:
        """After a failed decode the sequences' content is unknown: drop it and fail their requests; calls go on."""
        self.counters.failed_steps += 1
        for request in step.requests:
            self.calls.forget(request.call)
            self._fail(request, error)

    def _apply(self, step: Step, now_s: float) -> None:
        for index, (entry, request) in enumerate(zip(step.entries, step.requests, strict=True)):
            request.sequence.tokens.extend(entry.tokens)
            if request.state is RequestState.PREFILLING:
                request.computed_tokens += len(entry.tokens)
                if request.remaining_tokens:
                    continue
                self._prompt_done(request, now_s)
            if request.state is RequestState.TALKING:
                self._draw(request, index, now_s)

    def _offer_openings(self) -> None:
        """Keep the opening prompts of turns for calls to come: one a step, once their own callers hear something."""
        heard = (r for r in self._running if r.first_chunk_s is not None and not r.call.seeded)
        request = next(filter(self._may_copy, heard), None)
        if request is not None:
            self._offer_opening(request)

    def _may_copy(self, request: Request) -> bool:
        """Whether a state is copied as fast as callers who are listening to a reply can wait, if there are any."""
        quiet = not any(r.state is RequestState.TALKING for r in self._running if r is not request)
        return quiet or len(request.sequence.tokens) * self.cost.copy_ms_per_token <= self._max_copy_ms

    def _offer_opening(self, request: Request) -> None:
        try:
            self.calls.offer_prefix(request.call)
        except BackendError as e:
            self.calls.forget(request.call)
            if request.state is not RequestState.DONE:
                self._fail(request, e)

    def _prompt_done(self, request: Request, now_s: float) -> None:
        if request.kind is RequestKind.TURN:
            request.move(RequestState.TALKING)
            return
        if self._may_copy(request):
            self._offer_opening(request)
        if request.state is RequestState.DONE:
            return
        took_s = now_s - (now_s if request.started_s is None else request.started_s)
        self._observer.prefilled(request.usage(), took_s)
        self._out.append((request, Prefilled(request.usage(), took_s * 1e3)))
        self._retire(request)

    def _draw(self, request: Request, index: int, now_s: float) -> None:
        work = request.work
        try:
            token = self._backend.sample(index, work.sampler)
        except VoiceLLMError as e:
            self._fail(request, e)
            return
        work.generated.append(token)
        if request.first_token_s is None:
            request.first_token_s = now_s
        else:
            self._observer.token(now_s - work.last_token_s)
        work.last_token_s = now_s
        if self._backend.is_end_of_turn(token):
            self._finish(request, FinishReason.STOP, complete=True)
            return
        output = work.text.decode(self._backend.token_bytes(token))
        self._emit(request, output, now_s, last=output.call_begun is not None)
        work.visible_chars.append(work.text.emitted_visible_chars)
        if output.call_begun is not None and not self._force_call(request, output.call_begun):
            return
        if output.stopped:
            self._finish(request, FinishReason.STOP)
        elif len(work.generated) >= work.max_tokens:
            self._finish(request, FinishReason.LENGTH, complete=True)

    def _force_call(self, request: Request, said: str) -> bool:
        try:
            request.work.sampler.open_tag(said)
        except VoiceLLMError as e:
            self._fail(request, e)
            return False
        return True

    def _emit(self, request: Request, output: TextOutput, now_s: float, *, last: bool = False) -> None:
        work = request.work
        if output.thought:
            self._out.append((request, Thought(output.thought)))
        if output.text:
            work.emitted.append(output.text)
            self._out.append((request, TextDelta(output.text)))
        for position, text in enumerate(output.chunks, 1):
            if request.first_chunk_s is None:
                request.first_chunk_s = now_s
            self._out.append((request, SentenceChunk(work.chunks, text, last and position == len(output.chunks))))
            work.chunks += 1
            work.chunked_tokens = len(work.generated)
            if work.speech is not None:
                work.speech.sent(text, now_s)

    def _finish(self, request: Request, reason: FinishReason, *, complete: bool = False) -> None:
        now_s = self._clock()
        ended_by_itself = reason in (FinishReason.STOP, FinishReason.LENGTH)
        if request.turn is not None and ended_by_itself:
            self._emit(request, request.turn.text.flush(), now_s, last=True)
            request.turn.calls = request.turn.text.tool_calls
            for name, arguments in request.turn.calls:
                self._out.append((request, ToolCall(f"call_{uuid4().hex}", name, arguments)))
                reason = FinishReason.TOOL_CALLS
            request.turn.complete = complete  # last, since the prompt thread may be reading
        request.finish_reason = reason
        end = Finished(reason, request.usage(), request.timings(now_s))
        if request.turn is not None:
            self._observer.turn_ended(end.reason, end.usage, end.timings)
        self._out.append((request, end))
        self._retire(request)
        if request.turn is not None and ended_by_itself and not request.call.seeded and self._may_copy(request):
            self._offer_opening(request)

    def _fail(self, request: Request, error: VoiceLLMError) -> None:
        request.finish_reason = FinishReason.ERROR
        self._out.append((request, Failed(error)))
        self._retire(request)

    def _retire(self, request: Request) -> None:
        request.move(RequestState.DONE)
        for requests in (self._queued, self._running):
            if request in requests:
                requests.remove(request)
        if request.turn is not None:
            request.turn.sampler.close()
        if request.call.request is request:
            request.call.request = None
        request.call.last_active_s = self._clock()
