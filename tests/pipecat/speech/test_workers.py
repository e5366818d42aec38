"""PriorityWorkers run the most urgent job next."""

from __future__ import annotations

import threading

import pytest

from voice_llm.pipecat.speech.workers import Priority, PriorityWorkers

pytestmark = pytest.mark.unit


class Held:
    """Workers whose one thread is held until released."""

    def __init__(self) -> None:
        self.workers = PriorityWorkers("test")
        self.release = threading.Event()
        started = threading.Event()

        def hold() -> None:
            started.set()
            self.release.wait(10)

        self.held = self.workers.submit(hold)
        assert started.wait(10)


def test_the_most_urgent_job_goes_first() -> None:
    held = Held()
    order: list[str] = []
    jobs = [
        held.workers.submit(lambda name=name: order.append(name), priority)  # type: ignore[misc]
        for name, priority in [
            ("spare", Priority.SPARE),
            ("likely", Priority.LIKELY),
            ("awaited", Priority.AWAITED),
            ("awaited next", Priority.AWAITED),
        ]
    ]
    held.release.set()
    for job in jobs:
        job.result(10)

    assert order == ["awaited", "awaited next", "likely", "spare"]


def test_a_cancelled_job_never_runs() -> None:
    held = Held()
    ran: list[int] = []
    job = held.workers.submit(lambda: ran.append(1))
    assert job.cancel()
    held.release.set()
    held.workers.submit(lambda: None).result(10)

    assert not ran
    assert held.workers.is_idle


def test_workers_are_idle_when_a_result_is_known() -> None:
    held = Held()
    assert not held.workers.is_idle
    held.release.set()
    held.held.result(10)

    assert held.workers.is_idle


def test_an_error_reaches_the_future_and_the_thread_lives_on() -> None:
    workers = PriorityWorkers("test")
    with pytest.raises(ZeroDivisionError):
        workers.submit(lambda: 1 // 0).result(10)

    assert workers.submit(lambda: 7).result(10) == 7
    assert workers.is_idle
