"""EngineWorker: one thread owns the core; every waiter is answered, whatever ends the thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future

import pytest

from voice_llm.config.engine import EngineConfig
from voice_llm.config.sampling import SamplingParams
from voice_llm.engine import CoreEvent, DynamicBatcher, Failed, IsolationKey, LiveCall, Request, RequestKind, TurnWork
from voice_llm.errors import BackendError, CallBusyError, EngineDeadError, EngineError, VoiceLLMError
from voice_llm.events import Finished
from voice_llm.runtime.worker import EngineWorker
from voice_llm.text import TextPipeline

from .helpers import GatedBackend

pytestmark = pytest.mark.unit

PROMPT = "<|im_start|>user\nSelam<|im_end|>\n<|im_start|>assistant\n"
PATIENCE_S = 20.0


class Shop:
    """A worker and the events that it delivered."""

    def __init__(self) -> None:
        self.backend = GatedBackend()
        self.batcher = DynamicBatcher(self.backend, EngineConfig(), clock=time.monotonic)
        self.delivered: queue.SimpleQueue[list[CoreEvent]] = queue.SimpleQueue()
        self.threads: set[str] = set()
        self.worker = EngineWorker(self.backend, self.batcher, deliver=self._deliver, clock=time.monotonic)
        self._calls = 0

    def _deliver(self, events: list[CoreEvent]) -> None:
        self.threads.add(threading.current_thread().name)
        self.delivered.put(events)

    def open(self) -> LiveCall:
        self._calls += 1
        key = IsolationKey("fake", "test", "acme")
        name = f"call-{self._calls}"
        return self.worker.call(lambda: self.batcher.open_call(name, key)).result(PATIENCE_S)

    def turn(self, call: LiveCall) -> Request:
        tokens = self.backend.tokenize(PROMPT, parse_special=True)
        work = TurnWork(self.backend.new_sampler(SamplingParams()), TextPipeline(), 64)
        return Request(call, RequestKind.TURN, tokens, time.monotonic(), work)

    def end_of(self, request: Request) -> Finished | VoiceLLMError:
        """Wait for the request's last event."""
        while True:
            for owner, event in self.delivered.get(timeout=PATIENCE_S):
                if owner is request and isinstance(event, (Finished, Failed)):
                    return event if isinstance(event, Finished) else event.error


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    shop.worker.start()
    yield shop
    stop(shop)


def stop(shop: Shop) -> None:
    shop.backend.release()
    shop.worker.stop()


def test_turn_is_answered_on_the_engines_thread(shop: Shop) -> None:
    request = shop.turn(shop.open())
    shop.worker.submit(request)
    assert isinstance(shop.end_of(request), Finished)
    assert shop.threads == {"voice-llm-engine"}


def test_stop_is_idempotent_ends_the_thread_and_closes_the_backend(shop: Shop) -> None:
    assert shop.worker.is_alive
    stop(shop)
    stop(shop)
    assert not shop.worker.is_alive
    assert shop.worker.failure is None
    assert shop.backend.closed


def test_ended_worker_takes_no_work(shop: Shop) -> None:
    request = shop.turn(shop.open())
    stop(shop)
    for late in (
        lambda: shop.worker.post(lambda: None),
        lambda: shop.worker.call(lambda: None),
        lambda: shop.worker.submit(request),
    ):
        with pytest.raises(EngineDeadError, match="has ended"):
            late()


def test_result_or_error_of_a_call_reaches_its_caller_and_the_thread_goes_on(shop: Shop) -> None:
    def fail() -> None:
        raise KeyError("mine")

    assert shop.worker.call(lambda: 42).result(PATIENCE_S) == 42
    with pytest.raises(KeyError, match="mine"):
        shop.worker.call(fail).result(PATIENCE_S)
    assert shop.worker.is_alive


def test_refused_request_comes_back_as_failed_with_its_sampler_closed(shop: Shop) -> None:
    call = shop.open()
    shop.backend.hold()
    first, second = shop.turn(call), shop.turn(call)
    shop.worker.submit(first)
    shop.worker.submit(second)
    shop.backend.release()
    assert isinstance(shop.end_of(second), CallBusyError)
    assert isinstance(shop.end_of(first), Finished)
    stop(shop)
    assert shop.backend.open_samplers == 0


def test_work_is_done_in_the_order_it_came(shop: Shop) -> None:
    done: list[int] = []
    for i in range(100):
        shop.worker.post(lambda i=i: done.append(i))  # type: ignore[misc]
    shop.worker.call(lambda: None).result(PATIENCE_S)
    assert done == list(range(100))


def test_cancelled_future_is_not_run(shop: Shop) -> None:
    shop.backend.hold()
    shop.worker.submit(shop.turn(shop.open()))
    ran: list[int] = []
    shop.backend.wait_until_held()
    future = shop.worker.call(lambda: ran.append(1))
    assert future.cancel()
    shop.backend.release()
    shop.worker.call(lambda: None).result(PATIENCE_S)
    assert ran == []


def test_one_failed_step_fails_its_requests_and_the_thread_goes_on(shop: Shop) -> None:
    shop.backend.fatal = SystemError("a native surprise")
    request = shop.turn(shop.open())
    shop.worker.submit(request)
    error = shop.end_of(request)
    assert isinstance(error, EngineError)
    assert str(error) == "a step of the engine failed: SystemError"
    shop.backend.fatal = None
    again = shop.turn(request.call)
    shop.worker.submit(again)
    assert isinstance(shop.end_of(again), Finished)


def test_failures_with_a_good_step_between_them_never_end_the_thread(shop: Shop) -> None:
    call = shop.open()
    for fatal in (None, SystemError(), SystemError(), None, SystemError(), SystemError(), None):
        shop.backend.fatal = fatal
        request = shop.turn(call)
        shop.worker.submit(request)
        assert isinstance(shop.end_of(request), EngineError if fatal else Finished)
    assert shop.worker.is_alive


def test_step_that_fails_three_times_in_a_row_ends_the_thread(shop: Shop) -> None:
    shop.backend.fatal = SystemError("a native surprise")
    call = shop.open()
    errors = []
    for _ in range(3):
        request = shop.turn(call)
        shop.worker.submit(request)
        errors.append(shop.end_of(request))
    assert [type(e) for e in errors] == [EngineError, EngineError, EngineDeadError]
    shop.worker._thread.join(PATIENCE_S)
    assert isinstance(shop.worker.failure, SystemError)
    assert not shop.worker.is_alive
    assert shop.backend.closed


@pytest.mark.parametrize("fatal", [SystemExit(1), KeyboardInterrupt(), None], ids=["exit", "interrupt", "stop"])
def test_whatever_ends_the_thread_every_waiter_is_told(shop: Shop, fatal: BaseException | None) -> None:
    running, queued, late = (shop.turn(shop.open()) for _ in range(3))
    shop.backend.hold()
    shop.worker.submit(running)
    shop.backend.wait_until_held()
    # These reach the inbox while the last step is under way, and no step will ever take them.
    shop.worker.submit(queued)
    result: Future[int] = shop.worker.call(lambda: 1)
    shop.worker.submit(late)
    shop.backend.fatal = fatal
    if fatal is None:
        shop.worker.stop(timeout_s=0)
    shop.backend.release()
    ends: dict[Request, VoiceLLMError] = {}
    while len(ends) < 3:
        for request, event in shop.delivered.get(timeout=PATIENCE_S):
            if isinstance(event, Failed):
                ends[request] = event.error
    assert {type(e) for e in ends.values()} == {EngineDeadError}
    with pytest.raises(EngineDeadError):
        result.result(PATIENCE_S)
    shop.worker._thread.join(PATIENCE_S)
    assert shop.backend.open_samplers == 0
    assert shop.backend.closed


def test_posted_work_that_ends_the_thread_leaves_no_waiter_behind(shop: Shop) -> None:
    shop.backend.hold()
    shop.worker.submit(shop.turn(shop.open()))
    shop.backend.wait_until_held()

    def fail() -> None:
        raise RuntimeError("posted work is not guarded")

    shop.worker.post(fail)
    behind: Future[int] = shop.worker.call(lambda: 1)
    shop.backend.release()
    with pytest.raises(EngineDeadError, match="RuntimeError"):
        behind.result(PATIENCE_S)
    shop.worker._thread.join(PATIENCE_S)


def test_backend_that_cannot_even_be_emptied_does_not_keep_the_waiters_waiting(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise BackendError("gone")

    request = shop.turn(shop.open())
    shop.backend.fatal = SystemExit(1)
    monkeypatch.setattr(shop.backend, "seq_drop", fail)
    shop.worker.submit(request)
    assert isinstance(shop.end_of(request), EngineDeadError)
    shop.worker._thread.join(PATIENCE_S)
    assert shop.backend.closed


def test_time_of_the_present_step_can_be_seen(shop: Shop) -> None:
    shop.backend.hold()
    shop.worker.submit(shop.turn(shop.open()))
    shop.backend.wait_until_held()
    assert shop.worker.busy_since_s is not None
    stop(shop)
    assert shop.worker.busy_since_s is None


def test_cancelled_future_in_a_dead_engines_inbox_stays_cancelled(shop: Shop) -> None:
    shop.backend.hold()
    shop.worker.submit(shop.turn(shop.open()))
    shop.backend.wait_until_held()
    future = shop.worker.call(lambda: None)
    future.cancel()
    shop.worker.stop(timeout_s=0)
    stop(shop)
    with pytest.raises(CancelledError):
        future.result()
