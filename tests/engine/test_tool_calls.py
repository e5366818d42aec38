"""Tool calls of a reply, from the batcher's side."""

from __future__ import annotations

from typing import Any

import pytest

from voice_llm.config import SamplingParams
from voice_llm.engine import Request, RequestKind, TurnWork
from voice_llm.events import FinishReason, SentenceChunk, TextDelta, ToolCall
from voice_llm.testing import FakeBackend
from voice_llm.testing.backend import FakeSampler
from voice_llm.text import TextPipeline, ToolCallParser

from .driver import Driver, chat

pytestmark = pytest.mark.unit

CALL = '<tool_call>{"name":"claim","arguments":{"number":"4711"}}</tool_call>'


def ask(reply: str, *, max_tokens: int = 200, **options: Any) -> tuple[Driver, Request]:
    driver = Driver(reply=lambda _: reply)
    call = driver.open()
    sampler = driver.backend.new_sampler(SamplingParams())
    work = TurnWork(sampler, TextPipeline(tool_calls=ToolCallParser(["claim"]), **options), max_tokens)
    request = driver._submit(call, RequestKind.TURN, chat("Where is my claim?"), work)
    return driver, request


def events_after(reply: str, **options: Any) -> tuple[list[object], FinishReason]:
    driver, request = ask(reply, **options)
    driver.run()
    return driver.events[request], driver.finished(request).reason


def test_words_then_calls_then_the_end() -> None:
    events, reason = events_after("One moment. " + CALL + CALL)
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "One moment."
    assert [e for e in events if isinstance(e, SentenceChunk)] == [SentenceChunk(0, "One moment.", final=True)]
    calls = events[-3:-1]
    assert all(isinstance(c, ToolCall) and c.name == "claim" and c.arguments == {"number": "4711"} for c in calls)
    assert len({c.tool_call_id for c in calls if isinstance(c, ToolCall)}) == 2
    assert reason is FinishReason.TOOL_CALLS


def test_the_last_words_come_before_the_call_is_written() -> None:
    driver, request = ask("One moment. " + CALL)
    while not driver.chunks(request):
        driver.step()
    assert len(request.work.generated) == len("One moment. ") + 1  # the marker is one token here


@pytest.mark.parametrize(
    ("reply", "max_tokens", "expected"),
    [
        (CALL, 20, FinishReason.LENGTH),
        (CALL + CALL, 80, FinishReason.LENGTH),
        ("Hm. <tool_call>nonsense</tool_call>", 200, FinishReason.STOP),
        (CALL.replace("claim", "other"), 200, FinishReason.STOP),
        ("Hm. <tool_call>{", 200, FinishReason.STOP),
    ],
)
def test_what_is_no_whole_call_is_neither_an_event_nor_spoken(
    reply: str, max_tokens: int, expected: FinishReason
) -> None:
    events, reason = events_after(reply, max_tokens=max_tokens)
    assert not [e for e in events if isinstance(e, ToolCall)]
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) in ("", "Hm.")
    assert reason is expected


def test_a_call_that_ends_with_the_last_token_allowed_counts() -> None:
    _, reason = events_after(CALL, max_tokens=len(FakeBackend().tokenize(CALL, parse_special=True)))
    assert reason is FinishReason.TOOL_CALLS


def test_a_cancelled_reply_asks_for_nothing() -> None:
    driver, request = ask(CALL)
    while len(request.work.generated) < 45:
        driver.step()
    driver.batcher.cancel(request, FinishReason.INTERRUPTED)
    driver.run()
    assert not [e for e in driver.events[request] if isinstance(e, ToolCall)]


def test_the_sampler_is_told_where_the_first_call_begins() -> None:
    driver, request = ask("Hm. " + CALL + CALL)
    sampler = request.work.sampler
    assert isinstance(sampler, FakeSampler)
    driver.run_until(request, "talking")
    assert sampler.opened is None
    driver.run()
    assert sampler.opened == ""
