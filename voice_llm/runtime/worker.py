"""EngineWorker: the one thread that owns backend and core. Everything else talks to it through ``post``."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from ..backend.base import Backend
from ..engine import CoreEvent, DynamicBatcher, Failed, Request
from ..errors import EngineDeadError, EngineError, VoiceLLMError

__all__ = ["EngineWorker"]

logger = logging.getLogger(__name__)
T = TypeVar("T")
_MAX_FAILURES_IN_A_ROW = 3


class EngineWorker:
    """Drives a batcher on its own thread.

    Args:
        backend: Closed when the thread ends.
        batcher: Touched by the thread only.
        deliver: Given the events of a step, on the worker's thread, once a step; must not block.
        clock: Monotonic seconds.
        before_close: Called on the worker's thread before the backend is closed; returns once nobody else uses it.
    """

    def __init__(
        self,
        backend: Backend,
        batcher: DynamicBatcher,
        *,
        deliver: Callable[[list[CoreEvent]], None],
        clock: Callable[[], float],
        before_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._before_close = before_close
        self._backend = backend
        self._batcher = batcher
        self._deliver = deliver
        self._clock = clock
        self._inbox: deque[tuple[Callable[[], None], Future[Any] | None]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._failure: BaseException | None = None
        self._failures = 0
        self._thread = threading.Thread(target=self._main, name="voice-llm-engine", daemon=True)
        self.busy_since_s: float | None = None
        """When the present step began; None while idle."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs and takes work."""
        return self._thread.is_alive() and not self._stopping and self._failure is None

    @property
    def failure(self) -> BaseException | None:
        """What ended the thread, if it was not ``stop``."""
        return self._failure

    def post(self, work: Callable[[], None]) -> None:
        """Run ``work`` on the engine's thread before its next step; from any thread.

        Raises:
            EngineDeadError: The thread has ended.
        """
        self._put(work, None)

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Run ``work`` on the engine's thread and hand over its result.

        Raises:
            EngineDeadError: The thread has ended.
        """
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as e:  # the caller's, whatever it is
                future.set_exception(e)

        self._put(run, future)
        return future

    def submit(self, request: Request) -> None:
        """Queue a request; a refusal comes back as a ``Failed`` event.

        Raises:
            EngineDeadError: The thread has ended.
        """

        def run() -> None:
            try:
                self._batcher.submit(request)
            except VoiceLLMError as e:
                if request.turn is not None:
                    request.turn.sampler.close()
                self._deliver([(request, Failed(e))])

        self.post(run)

    def stop(self, timeout_s: float = 30.0) -> None:
        """End the thread after its present step and wait for it; idempotent."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _put(self, work: Callable[[], None], future: Future[Any] | None) -> None:
        with self._wake:
            if not self.is_alive:
                raise self._dead()
            self._inbox.append((work, future))
            self._wake.notify()

    def _main(self) -> None:
        try:
            self._loop()
        except BaseException as e:
            logger.exception("the engine's thread ends")
            self._failure = e
        finally:
            self._close()

    def _loop(self) -> None:
        while not self._stopping:
            self._wait_for_work()
            if events := self._work():
                self._deliver(events)

    def _work(self) -> list[CoreEvent]:
        """Do what was posted, then a step, if there is something to do."""
        # One by one, so that whatever ends the thread leaves the others to ``_close``.
        while self._inbox:
            work, _ = self._inbox.popleft()
            work()
        if not self._batcher.has_work:
            return []
        self.busy_since_s = self._clock()
        try:
            events = self._batcher.step()
            self._failures = 0
        except Exception as e:
            self._failures += 1
            if self._failures >= _MAX_FAILURES_IN_A_ROW:
                raise
            logger.exception("a step failed; its requests end, calls go on")
            events = self._batcher.abandon(EngineError(f"a step of the engine failed: {type(e).__name__}"))
        finally:
            self.busy_since_s = None
        return events

    def _wait_for_work(self) -> None:
        with self._wake:
            while not (self._inbox or self._stopping):
                rest_s = self._rest_s()
                if rest_s == 0:
                    return
                self._wake.wait(rest_s)

    def _rest_s(self) -> float | None:
        """Return how long there is nothing to do unless something comes in; None for ever."""
        if not self._batcher.has_work:
            return None
        wake_s = self._batcher.wake_s
        return 0.0 if wake_s is None else max(0.0, wake_s - self._clock())

    def _close(self) -> None:
        """Fail every waiter, present and future, and free the model."""
        with self._wake:
            self._stopping = True
            abandoned = list(self._inbox)
            self._inbox.clear()
        for work, future in abandoned:
            if future is None:
                self._run_last(work)
            elif future.set_running_or_notify_cancel():
                future.set_exception(self._dead())
        try:
            self._deliver(self._batcher.abandon(self._dead()))
        except Exception:
            logger.exception("open requests could not be told that the engine has ended")
        finally:
            self._before_close()
            self._backend.close()

    @staticmethod
    def _run_last(work: Callable[[], None]) -> None:
        """Run what was posted too late for a step: a request among it is queued, so that it is failed with the rest."""
        try:
            work()
        except Exception:
            logger.exception("work for an engine that has ended failed")

    def _dead(self) -> EngineDeadError:
        why = f": {type(self._failure).__name__}" if self._failure else ""
        return EngineDeadError(f"the engine has ended{why}")
