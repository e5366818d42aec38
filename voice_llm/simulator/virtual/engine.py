"""VirtualEngine: the engine itself in virtual time: hours of calls in seconds, the same each time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final, ParamSpec, TypeVar

from ...backend import Tokenizer
from ...config import EngineConfig, Profile
from ...engine.step_costs import StepCosts
from ...observer import Observer
from ...prompt import ToolFormat
from ...runtime import Engine
from ...runtime.watchdog import Watchdog
from ...runtime.worker import EngineWorker
from .backend import SimulatedBackend
from .clock import StepClock
from .words import WordTokenizer

__all__ = ["SMOLLM2_ON_TWO_CORES", "VirtualEngine", "virtual_engine"]

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
SMOLLM2_ON_TWO_CORES: Final = StepCosts(
    decode_ms=tuple(8.0 + 4.3 * rows for rows in range(1, 33)),
    row_ms=4.3,
    context_ms=1.0,
    prefill_ms=(4.0, 2.0, 0.6),
    copy_ms_per_token=0.004,
    sample_ms=0.1,
    step_ms=0.4,
)
"""Step costs of SmolLM2-135M on two CPU cores."""

# How long a step takes that does nothing: otherwise time would stand still.
_LEAST_STEP_S: Final = 1e-3


class VirtualEngine(Engine):
    """An engine on a ``SimulatedBackend``, for a loop of ``run_in_virtual_time``. Make it by ``start``.

    Scheduler, batcher, cache, admission and call are those of ``Engine``; there are no threads. Preparing prompts and
    the event loop itself take no time.
    """

    def __init__(
        self,
        backend: SimulatedBackend,
        profile: Profile,
        *,
        config: EngineConfig | None = None,
        clock: Callable[[], float] | None = None,
        max_calls: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(backend, profile, config=config, clock=backend.clock, max_calls=max_calls, observer=observer)
        self._simulated = backend
        self._prompts = _AtOnce()
        self._watchdog = _Unwatched(lambda: False, lambda: None)
        self._worker = _TaskWorker(backend, self._batcher, deliver=self._deliver, clock=backend.clock)

    @property
    def tool_format(self) -> ToolFormat:
        """How the model of the profile would call tools."""
        return self._formatter.tool_format

    @property
    def simulated(self) -> SimulatedBackend:
        """The backend."""
        return self._simulated

    async def close(self) -> None:
        """See ``Engine``."""
        await super().close()
        assert isinstance(self._worker, _TaskWorker)
        await self._worker.ended()

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        self._loop.call_soon(function, *args)


async def virtual_engine(
    profile: Profile,
    costs: StepCosts | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    seed: int = 0,
    max_calls: int | None = None,
) -> VirtualEngine:
    """Start an engine in virtual time.

    Args:
        profile: Its engine's sizes and choices are taken over; of the model only what the tokenizer has of it.
        costs: What steps take; those of SmolLM2-135M on two CPU cores by default.
        tokenizer: A real model's; pieces of words by default.
        seed: Of how far single steps lie off their costs.
        max_calls: As in ``Engine``.
    """
    config = profile.engine
    backend = SimulatedBackend(
        tokenizer or WordTokenizer(),
        costs or SMOLLM2_ON_TWO_CORES,
        clock=StepClock(),
        sequences=config.sequences,
        context_per_call=config.context_per_call,
        max_batch_tokens=config.batch_tokens,
        split_kv=tokenizer.info.split_kv if tokenizer is not None else True,
        seed=seed,
    )
    if tokenizer is None:
        # Pieces of words are no model's tokens: they go with a template of their own.
        profile = profile.model_copy(update={"chat_template": None})
    return await VirtualEngine.start(backend, profile, config=config, max_calls=max_calls)


class _Unwatched(Watchdog):
    """A step in virtual time comes to its end."""

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


class _AtOnce(Executor):
    """Runs what it is given before it returns."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(function(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


class _TaskWorker(EngineWorker):
    """Drives a batcher as a task: what a step takes passes after it, and then its events are told."""

    _backend: SimulatedBackend

    def start(self) -> None:
        self._arrived = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._drive())

    @property
    def is_alive(self) -> bool:
        return not (self._task.done() or self._stopping) and self._failure is None

    def stop(self, timeout_s: float = 30.0) -> None:
        self._stopping = True

    async def ended(self) -> None:
        """Wait for the task after ``stop``."""
        self._arrived.set()
        await self._task

    def _put(self, work: Callable[[], None], future: Future[Any] | None) -> None:
        if not self.is_alive:
            raise self._dead()
        self._inbox.append((work, future))
        self._arrived.set()

    async def _drive(self) -> None:
        try:
            while not self._stopping:
                await self._wait()
                before = self._backend.counters.batches
                events = self._work()
                if self._backend.counters.batches > before:
                    self._backend.clock.advance(self._backend.costs.step_ms / 1e3)
                elif not events and self._rest_s() == 0:
                    self._backend.clock.advance(_LEAST_STEP_S)
                await self._backend.clock.catch_up()
                if events:
                    self._deliver(events)
        except Exception as error:
            logger.exception("the engine's task ends")
            self._failure = error
        finally:
            self._close()

    async def _wait(self) -> None:
        """Wait until something was posted, or until there is something to do."""
        while not (self._inbox or self._stopping):
            rest_s = self._rest_s()
            if rest_s == 0:
                return
            self._arrived.clear()
            try:
                async with asyncio.timeout(rest_s):
                    await self._arrived.wait()
            except TimeoutError:
                pass
