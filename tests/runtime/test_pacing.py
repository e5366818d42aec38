"""Paced replies in a running engine: they rest while the caller has enough to hear, and go on by themselves."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.runtime.helpers import chunks_of, finished_of, read, running, text_of, user
from voice_llm.config import EngineConfig
from voice_llm.errors import InvalidRequestError
from voice_llm.events import SentenceChunk
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

SENTENCE = "A sentence of some length. "
REPLY = SENTENCE * 12
CHARS_PER_S = 200.0
AHEAD_S = 1.0
OPTIONS: dict[str, Any] = {"speaking_rate_chars_per_s": CHARS_PER_S, "engine": EngineConfig(max_ahead_s=AHEAD_S)}


def talkative() -> FakeBackend:
    return FakeBackend(reply=lambda _: REPLY)


async def test_reply_comes_no_further_ahead_of_the_ear_than_the_bound_and_is_whole() -> None:
    async with running(talkative(), **OPTIONS) as engine, engine.open_call() as call:
        started_s = time.monotonic()
        async with asyncio.timeout(20):
            events = await read(call.generate(user("Hello?"), max_tokens=400))
        took_s = time.monotonic() - started_s
    assert text_of(events).strip() == REPLY.strip()
    assert finished_of(events).reason.value == "stop"
    assert took_s >= (len(REPLY) - 2 * len(SENTENCE)) / CHARS_PER_S - AHEAD_S - 0.4


async def test_resting_reply_is_cancelled_at_once() -> None:
    async with running(talkative(), **OPTIONS) as engine, engine.open_call() as call:
        stream = call.generate(user("Hello?"), max_tokens=400)
        await anext(stream)
        stream.cancel()
        async with asyncio.timeout(20):
            events = await read(stream)
        assert finished_of(events).reason.value == "cancelled"


async def test_transport_that_plays_faster_than_the_estimate_is_kept_in_speech() -> None:
    slow = OPTIONS | {"speaking_rate_chars_per_s": 5.0}  # the estimate alone would take a minute
    async with running(talkative(), **slow) as engine, engine.open_call() as call:
        stream = call.generate(user("Hello?"), max_tokens=400)
        async with asyncio.timeout(20):
            async for event in stream:
                if isinstance(event, SentenceChunk):
                    stream.played(event.index, 60_000)
        assert stream.finished is not None
        assert stream.finished.reason.value == "stop"


@pytest.mark.parametrize(
    ("first_chunk", "first"), [("clause", "Thank you for calling, "), ("sentence", "Thank you for calling, madam. ")]
)
async def test_caller_begins_to_hear_a_reply_where_its_first_chunk_may_end(
    first_chunk: str, first: str, heard: list[str]
) -> None:
    backend = FakeBackend(reply=lambda _: "Thank you for calling, madam. How can I help you?")
    async with running(backend) as engine, engine.open_call() as call:
        events = await read(call.generate(user("Hello?"), first_chunk=first_chunk))
    assert chunks_of(events)[0].text == first
    assert heard == [chunk.text for chunk in chunks_of(events)]


async def test_first_chunk_that_is_neither_is_refused() -> None:
    async with running(talkative()) as engine, engine.open_call() as call:
        with pytest.raises(InvalidRequestError, match="first_chunk must be 'clause' or 'sentence', not 'word'"):
            call.generate(user("Hello?"), first_chunk="word")
