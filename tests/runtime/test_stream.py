"""ReplyStream: events on their way to whoever reads them."""

from __future__ import annotations

import asyncio
import gc

import pytest

from voice_llm.engine import Failed
from voice_llm.errors import BackendError, SlowConsumerError
from voice_llm.events import Finished, FinishReason, GenerateEvent, Prefilled, TextDelta, Timings, Usage
from voice_llm.runtime import ReplyStream

from .helpers import read

pytestmark = pytest.mark.unit

FINISHED = Finished(FinishReason.STOP, Usage(), Timings())


class Source:
    """A stream and the cancels that it asked for."""

    def __init__(self) -> None:
        self.cancels: list[FinishReason] = []
        self.stream = ReplyStream(self.cancels.append)

    def push(self, *events: GenerateEvent | Failed) -> None:
        for event in events:
            self.stream.push(event)


async def test_events_come_in_order_and_the_last_one_ends_the_loop() -> None:
    source = Source()
    source.push(TextDelta("a"), TextDelta("b"), FINISHED)
    assert await read(source.stream) == [TextDelta("a"), TextDelta("b"), FINISHED]
    assert source.stream.finished is FINISHED
    assert await read(source.stream) == []


async def test_reader_that_came_first_is_woken() -> None:
    source = Source()
    reading = asyncio.create_task(read(source.stream))
    await asyncio.sleep(0)
    source.push(TextDelta("a"))
    await asyncio.sleep(0)
    source.push(FINISHED)
    assert await reading == [TextDelta("a"), FINISHED]


async def test_failure_is_raised_after_what_came_before_it() -> None:
    source = Source()
    source.push(TextDelta("a"), Failed(BackendError("compute failed")))
    assert await anext(source.stream) == TextDelta("a")
    for _ in range(2):
        with pytest.raises(BackendError, match="compute failed"):
            await anext(source.stream)
    assert source.stream.finished is None


async def test_cancelled_reader_cancels_the_turn() -> None:
    source = Source()
    reading = asyncio.create_task(read(source.stream))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.cancels[:1] == [FinishReason.CANCELLED]


async def test_dropped_stream_cancels_the_turn() -> None:
    source = Source()
    source.push(TextDelta("a"))
    cancels = source.cancels
    del source
    gc.collect()
    assert cancels == [FinishReason.CANCELLED]


async def test_cancel_hands_on_its_reason_and_the_last_event_still_arrives() -> None:
    source = Source()
    source.stream.cancel(FinishReason.INTERRUPTED)
    assert source.cancels == [FinishReason.INTERRUPTED]
    source.push(Finished(FinishReason.INTERRUPTED, Usage(), Timings()))
    assert len(await read(source.stream)) == 1


@pytest.mark.parametrize("last", [FINISHED, Failed(BackendError("failed"))])
async def test_nothing_is_cancelled_or_taken_after_the_end(last: Finished | Failed) -> None:
    source = Source()
    source.push(last)
    source.push(TextDelta("late"))
    source.stream.cancel()
    cancels, stream = source.cancels, source.stream
    if isinstance(last, Finished):
        assert await read(stream) == [last]
    del source, stream
    gc.collect()
    assert cancels == []


async def test_reader_that_never_reads_loses_its_turn_and_the_memory_stays_bounded() -> None:
    source = Source()
    for _ in range(5000):
        source.push(TextDelta("a"))
    assert source.cancels == [FinishReason.CANCELLED]
    with pytest.raises(SlowConsumerError, match="were not read"):
        await anext(source.stream)


async def test_reader_just_in_time_loses_nothing() -> None:
    source = Source()
    for _ in range(4096):
        source.push(TextDelta("a"))
    source.push(FINISHED)
    assert len(await read(source.stream)) == 4097
    assert source.cancels == []


async def test_prefill_events_are_none_of_a_readers_business() -> None:
    source = Source()
    source.stream.push(Prefilled(Usage(), 1.0))
    source.push(FINISHED)
    assert await read(source.stream) == [FINISHED]
