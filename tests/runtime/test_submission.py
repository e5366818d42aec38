"""Submission: submit and cancel of one request stay in order."""

from __future__ import annotations

import threading

import pytest

from voice_llm.engine import IsolationKey, LiveCall, Request, RequestKind
from voice_llm.errors import EngineDeadError
from voice_llm.events import FinishReason
from voice_llm.runtime.submission import Submission

pytestmark = pytest.mark.unit


class Log:
    """What reached the engine, in order."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        call = LiveCall("call", IsolationKey("fake", "test", "acme"))
        self.request = Request(call, RequestKind.PREFILL, [1], 0.0)
        self.submission = Submission(
            lambda _: self.entries.append("submit"), lambda _, reason: self.entries.append(reason.value)
        )


def test_request_is_submitted_once_and_not_cancelled() -> None:
    log = Log()
    log.submission.submit(log.request)
    assert log.entries == ["submit"]


def test_cancel_after_submit_cancels_with_its_reason() -> None:
    log = Log()
    log.submission.submit(log.request)
    log.submission.cancel(FinishReason.INTERRUPTED)
    assert log.entries == ["submit", "interrupted"]


def test_cancel_before_there_is_a_request_reaches_the_engine_right_after_it() -> None:
    log = Log()
    log.submission.cancel()
    assert log.entries == []
    log.submission.submit(log.request)
    assert log.entries == ["submit", "cancelled"]


@pytest.mark.parametrize("early", [True, False])
def test_only_the_first_reason_counts(early: bool) -> None:
    log = Log()
    if not early:
        log.submission.submit(log.request)
    log.submission.cancel(FinishReason.INTERRUPTED)
    log.submission.cancel(FinishReason.CANCELLED)
    if early:
        log.submission.submit(log.request)
    assert log.entries == ["submit", "interrupted"]


def test_cancel_by_the_thread_that_submits_does_not_lock_up() -> None:
    log = Log()

    def submit(_: Request) -> None:
        log.entries.append("submit")
        submission.cancel()

    submission = Submission(submit, lambda _, reason: log.entries.append(reason.value))
    thread = threading.Thread(target=submission.submit, args=(log.request,), daemon=True)
    thread.start()
    thread.join(5)
    assert log.entries == ["submit", "cancelled"]


def test_failed_submit_leaves_nothing_to_cancel() -> None:
    log = Log()

    def submit(_: Request) -> None:
        raise EngineDeadError("the engine has ended")

    submission = Submission(submit, lambda _, reason: log.entries.append(reason.value))
    with pytest.raises(EngineDeadError):
        submission.submit(log.request)
    submission.cancel()
    assert log.entries == []
