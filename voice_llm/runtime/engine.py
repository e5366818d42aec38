"""Engine and Call: the asyncio face of the engine.

One thread owns model and core (``worker.py``), one more prepares prompts, so that neither templates nor tokenizing nor
decoding ever run on the event loop. The events of a step reach the loop in one hop.
"""

from __future__ import annotations

import asyncio
import copy
import datetime
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from uuid import uuid4

from ..backend import Backend
from ..config import EngineConfig, Profile
from ..config.language import check_language, primary_language
from ..engine import CoreEvent, DynamicBatcher, Failed, Request
from ..engine.calibration import calibrate
from ..engine.step_costs import StepCosts
from ..errors import EngineDeadError, InvalidRequestError
from ..events import Finished, FinishReason, Prefilled
from ..observer import Observer
from ..prompt import ENGLISH, TURKISH, PromptFormatter, resolve_template
from .call import Opening
from .state import EngineStats, Health
from .watchdog import Watchdog
from .worker import EngineWorker

__all__ = ["Engine"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

_STALL_S: Final = 30.0
_STALLED: Final = f"the engine is stalled: a step has been running for more than {_STALL_S:.0f} s"


class Engine:
    """One model, many calls. Made by ``load``, or by ``start`` around a backend of your own.

    Example:
        >>> engine = await Engine.load("smollm2_135m_demo")
        >>> async with engine.open_call() as call:
        ...     async for event in call.generate([{"role": "user", "content": "Hello!"}]):
        ...         print(event)
        >>> await engine.close()

    It belongs to the event loop it was started on.
    """

    def __init__(
        self,
        backend: Backend,
        profile: Profile,
        *,
        config: EngineConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_calls: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._profile = profile
        self._observer = observer or Observer()
        self._backend = backend
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._batcher = DynamicBatcher(
            backend, config or profile.engine, clock=clock, max_calls=max_calls, observer=self._observer
        )
        self._formatter = _formatter(backend, profile)
        self._prompts: Executor = ThreadPoolExecutor(1, thread_name_prefix="voice-llm-prompt")
        # A prompt may still be tokenized, with the GIL released, when the model is to be freed.
        self._worker = EngineWorker(
            backend, self._batcher, deliver=self._deliver, clock=clock, before_close=self._prompts.shutdown
        )
        self._waiters: set[asyncio.Future[Any]] = set()
        self._sinks: dict[Request, Callable[[Any], None]] = {}
        self._closed = False
        self._watchdog = Watchdog(self._is_stalled, self._tell_of_stall)

    @classmethod
    async def load(
        cls,
        profile: str | Path | Profile,
        *,
        model: str | Path | None = None,
        progress: Callable[[float], None] | None = None,
        max_calls: int | None = None,
        observer: Observer | None = None,
        **engine_options: Any,
    ) -> Engine:
        """Load a profile's model and make it ready for calls.

        Args:
            profile: A profile's name, a path to one, or the profile itself.
            model: A GGUF file to use instead of the profile's.
            progress: Called (on another thread) with the share of the file that is loaded, 0 to 1.
            max_calls: Most open calls; None for as many as there are sequences.
            observer: Is told of steps, tokens, turns and calls.
            **engine_options: Fields of ``EngineConfig`` to override; None leaves the profile's value.

        Raises:
            NotFoundError: There is no such profile.
            ConfigError: The profile or an option is wrong.
            ModelFileError: The model file is missing, truncated or not GGUF.
            BackendError: The model does not fit into memory, or the native library is not the right one.
        """
        from .loading import load_backend

        if not isinstance(profile, Profile):
            profile = await asyncio.to_thread(Profile.load, profile)
        config = profile.engine.replace(**engine_options)
        loading = asyncio.ensure_future(asyncio.to_thread(load_backend, profile, config, model, progress))
        try:
            backend, config = await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(_close_late)
            raise
        return await cls.start(backend, profile, config=config, max_calls=max_calls, observer=observer)

    @classmethod
    async def start(
        cls,
        backend: Backend,
        profile: Profile,
        *,
        config: EngineConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_calls: int | None = None,
        observer: Observer | None = None,
    ) -> Self:
        """Start an engine around a loaded backend, which it then owns, and warm it up."""
        try:
            engine = cls(backend, profile, config=config, clock=clock, max_calls=max_calls, observer=observer)
        except BaseException:
            backend.close()
            raise
        engine._worker.start()
        engine._watchdog.start()
        try:
            await engine._warm_up()
        except BaseException:
            await engine.close()
            raise
        return engine

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "live" if self._worker.is_alive else "dead"
        calls = self._batcher.calls
        return f"<Engine {self._profile.name} [{state} | {calls.open_calls}/{calls.max_calls} calls]>"

    @property
    def profile(self) -> Profile:
        """The profile that it was loaded with."""
        return self._profile

    @property
    def backend(self) -> Backend:
        """The backend; only its tokenizer part may be used from here."""
        return self._backend

    @property
    def is_alive(self) -> bool:
        """Whether its thread runs and takes work; a stalled one does."""
        return self._worker.is_alive

    @property
    def observer(self) -> Observer:
        """Who is told what happens."""
        return self._observer

    @property
    def clock(self) -> Callable[[], float]:
        """Monotonic seconds; arrival times are given on this clock."""
        return self._clock

    def open_call(
        self,
        *,
        call_id: str | None = None,
        tenant: str = "default",
        language: str | None = None,
        one_shot: bool = False,
        soft: bool = False,
    ) -> Opening:
        """Open a call: ``async with engine.open_call() as call``, or ``call = await engine.open_call()``.

        Args:
            call_id: The transport's name for it, unique in its tenant; a fresh one by default.
            tenant: Whose call it is; nothing is shared between tenants but the profile's own system prompt.
            language: Code of the language that its replies are in, such as ``tr`` or ``en-GB``; by default the
                profile's. It says where sentences end and how fast they are spoken. It changes no prompt: the headings
                of retrieved text and tools stay in the profile's language, as the profile's own prompt is, and calls
                share what is cached, whatever they speak.
            one_shot: Whether it is no call but an inference beside them, such as a summary. It takes no call's place
                (as many of them may be open as calls) and waits behind callers until a sequence can be had; one that
                runs is not stopped for them.
            soft: Whether nobody will say when it ends, as with requests that share a call id: it counts as a call, and
                can be refused, only while it answers a turn; in between it is the first to be parked.

        Raises (when awaited):
            AtCapacityError: As many calls, or one-shots, are open as may be, or with one more call first words would be
                late for everyone (see ``EngineConfig.admission``).
            WrongStateError: The tenant has an open call of that id.
            EngineDeadError: The engine is closed or has died.

        Raises:
            InvalidRequestError: The tenant is not named, or the language is no code of BCP 47.
        """
        if not isinstance(tenant, str) or not tenant:
            raise InvalidRequestError(f"tenant must be a name, not {tenant!r}", param="tenant")
        language = None if language is None else check_language(language)
        return Opening(self, call_id or uuid4().hex, tenant, language=language, one_shot=one_shot, soft=soft)

    def health(self) -> Health:
        """Say whether the engine can serve, at once and from any thread."""
        detail = ""
        if self._closed:
            detail = "the engine is closed"
        elif not self._worker.is_alive:
            detail = f"the engine's thread has ended: {self._worker.failure!r}"
        elif self._is_stalled():
            detail = _STALLED
        return Health(not detail, detail, self._batcher.calls.open_calls, self._batcher.calls.max_calls)

    async def stats(self) -> EngineStats:
        """Return running totals, as of between two steps."""
        return await self._run(self._read_stats)

    async def step_costs(self) -> StepCosts:
        """Return what steps take on this machine, as far as it has been learned."""
        return await self._run(lambda: StepCosts.of(self._batcher.cost, self._batcher.counters))

    async def check_integrity(self) -> None:
        """Check that nothing is lost or held twice; for tests and for idle moments.

        Raises:
            EngineError: With all the numbers.
        """
        await self._run(self._batcher.check_integrity)

    async def close(self) -> None:
        """End all calls and free the model; idempotent."""
        self._closed = True
        await asyncio.to_thread(self._watchdog.stop)
        await asyncio.to_thread(self._worker.stop)
        await asyncio.sleep(0)  # lets the last events, already on their way, reach their readers

    async def _warm_up(self) -> None:
        await self._run(lambda: calibrate(self._backend, self._batcher.cost, self._clock))
        if not self._profile.system_prompt:
            return
        async with Opening(self, "warm-up", tenant="") as call:
            call._live.seeded = True  # it is kept under the profile's key, not under its own as well
            await call.prefill([{"role": "system", "content": self._profile.system_prompt}])
            await self._run(lambda: self._batcher.calls.save_prefix(call._live, call._live.key.of_profile))

    def _read_stats(self) -> EngineStats:
        calls = self._batcher.calls
        return EngineStats(
            copy.copy(self._batcher.counters),
            copy.copy(self._backend.counters),
            self._batcher.prefixes.nbytes,
            calls.parked_bytes,
            calls.pool.size,
            calls.pool.size - calls.pool.free,
            sum(len(s.tokens) for s in calls.pool.held),
            self._batcher.cost.decode_error,
            self._batcher.cost.prefill_error,
            calls.admission.forecast(self._clock()),
        )

    async def _run(self, work: Callable[[], T], *, on_late: Callable[[T], None] | None = None) -> T:
        """Run ``work`` on the engine's thread.

        Args:
            work: What to run.
            on_late: Given the result where nobody waits for it any more.
        """
        self._check_alive()
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._waiters.add(waiter)

        def settle(done: Future[T]) -> None:
            self._waiters.discard(waiter)
            error = done.exception()
            if not waiter.done() and error is None:
                waiter.set_result(done.result())
            elif not waiter.done() and error is not None:
                waiter.set_exception(error)
            elif on_late is not None and error is None:
                on_late(done.result())

        self._worker.call(work).add_done_callback(lambda done: self._on_loop(settle, done))
        return await waiter

    def _check_alive(self) -> None:
        if not self._worker.is_alive:
            raise EngineDeadError("the engine is closed" if self._closed else "the engine's thread has ended")
        if self._is_stalled():
            raise EngineDeadError(_STALLED)

    def _is_stalled(self) -> bool:
        busy_since_s = self._worker.busy_since_s
        return busy_since_s is not None and self._clock() - busy_since_s > _STALL_S

    def _tell_of_stall(self) -> None:
        """Called on the watchdog's thread: end every wait, since the step may never come back."""
        for request in list(self._sinks):
            self._post_nowait(partial(self._batcher.cancel, request))
            self._deliver([(request, Failed(EngineDeadError(_STALLED)))])
        self._on_loop(self._fail_waiters)

    def _fail_waiters(self) -> None:
        for waiter in list(self._waiters):
            if not waiter.done():
                waiter.set_exception(EngineDeadError(_STALLED))

    @contextmanager
    def _listening(self, request: Request, sink: Callable[[Any], None]) -> Iterator[None]:
        """Let ``sink`` have the request's events; where submitting it fails, free what it holds."""
        self._sinks[request] = sink
        try:
            yield
        except BaseException:
            self._sinks.pop(request, None)
            if request.turn is not None:
                request.turn.sampler.close()
            raise

    def _cancel(self, request: Request, reason: FinishReason) -> None:
        asked_s = self._clock()
        self._post_nowait(lambda: self._batcher.cancel(request, reason, asked_s=asked_s))

    def _post_nowait(self, work: Callable[[], None]) -> None:
        """Run ``work`` on the engine's thread; where that has ended, what it would free is gone already."""
        try:
            self._worker.post(work)
        except EngineDeadError:
            logger.debug("dropped work for an engine that has ended")

    def _deliver(self, events: list[CoreEvent]) -> None:
        """Called on the engine's thread."""
        self._on_loop(self._dispatch, events)

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function on the event loop, from any thread; where the loop is closed, nobody is left to tell."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            logger.debug("the event loop is closed; %s is not told", function.__name__)

    def _dispatch(self, events: list[CoreEvent]) -> None:
        for request, event in events:
            sink = self._sinks.get(request)
            if sink is None:
                continue
            if isinstance(event, (Finished, Prefilled, Failed)):
                del self._sinks[request]
            sink(event)


def _close_late(loading: asyncio.Future[tuple[Backend, EngineConfig]]) -> None:
    """Close what was loaded after its loader had given up."""
    if not loading.cancelled() and loading.exception() is None:
        loading.result()[0].close()


def _formatter(backend: Backend, profile: Profile) -> PromptFormatter:
    info = backend.info
    template = resolve_template(
        info.chat_template,
        profile.chat_template,
        backend.control_tokens,
        bos_token=info.bos_token,
        eos_token=info.eos_token,
        # Some templates print the date: the day of the start, since one that changed would cost every call its cache.
        date=datetime.datetime.now(tz=datetime.UTC).date(),
    )
    headings = TURKISH if primary_language(profile.language) == "tr" else ENGLISH
    return PromptFormatter(backend, template, bos=info.bos_token if info.add_bos else "", headings=headings)
