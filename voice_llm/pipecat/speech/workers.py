"""PriorityWorkers: threads that take the most urgent job next."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, TypeVar

__all__ = ["Priority", "PriorityWorkers"]

T = TypeVar("T")
_Job = tuple[int, int, Callable[[], Any], Future[Any]]


class Priority(IntEnum):
    """How urgent a job is; the smaller goes first."""

    AWAITED = 0
    """A caller waits in silence for it."""
    LIKELY = 1
    """It will be awaited soon, if the caller's pause lasts."""
    SPARE = 2
    """Nobody waits for it."""


class PriorityWorkers:
    """Runs jobs on daemon threads, the most urgent first and equals in order.

    A job that has begun cannot be stopped; one that still waits is dropped by ``Future.cancel``.

    Args:
        name: Prefix of the threads' names.
        count: How many jobs run at once.
    """

    def __init__(self, name: str, count: int = 1) -> None:
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._unfinished = 0
        for index in range(count):
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True).start()

    @property
    def is_idle(self) -> bool:
        """Whether no job runs or waits."""
        with self._lock:
            return self._unfinished == 0

    def submit(self, job: Callable[[], T], priority: Priority = Priority.AWAITED) -> Future[T]:
        """Queue ``job`` and return its future; safe from any thread."""
        future: Future[T] = Future()
        with self._lock:
            self._unfinished += 1
        self._jobs.put((priority, next(self._order), job, future))
        return future

    def _work(self) -> None:
        while True:
            _, _, job, future = self._jobs.get()
            self._run(job, future)
            # A thread that waits for its next job must not keep the result of the last one alive.
            del job, future

    def _run(self, job: Callable[[], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            self._count_down()
            return
        try:
            result = job()
        except BaseException as error:
            self._count_down()
            future.set_exception(error)
        else:
            # Counted before the result is known, so that whoever gets it finds the workers idle.
            self._count_down()
            future.set_result(result)

    def _count_down(self) -> None:
        with self._lock:
            self._unfinished -= 1
