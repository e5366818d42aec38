"""What a burst of large requests leaves behind is given back; what failed keeps nothing alive."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Iterator

import pytest

from voice_llm.errors import InvalidRequestError
from voice_llm.servers.conversation_outbox import Outbox
from voice_llm.servers.memory import give_memory_back, resident_bytes

pytestmark = pytest.mark.unit


class Large:
    """What a request was parsed into."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def refused(payload: Large) -> InvalidRequestError:
    """An error whose traceback has a frame that holds the payload."""
    try:
        raise InvalidRequestError(f"cannot be read: {type(payload).__name__}")
    except InvalidRequestError as error:
        return error


def test_an_error_that_is_kept_as_a_value_keeps_nothing_else(no_collector: None) -> None:
    large = Large()
    alive = weakref.ref(large)
    error = refused(large).as_value()
    del large
    assert alive() is None
    assert str(error) == "cannot be read: Large"


async def test_a_connection_that_was_refused_leaves_no_cycle(no_collector: None) -> None:
    outbox = Outbox(patience_s=1.0)
    alive = weakref.ref(outbox)
    outbox.close(refused(Large()))
    with pytest.raises(InvalidRequestError):
        await outbox.next()
    del outbox
    assert alive() is None


@pytest.mark.skipif(not os.confstr("CS_GNU_LIBC_VERSION"), reason="glibc's allocator is the one that keeps memory")
async def test_freed_memory_goes_back_to_the_system() -> None:
    watching = asyncio.create_task(give_memory_back(every_s=0.01, grown_bytes=8 << 20))
    await asyncio.sleep(0)
    before = resident_bytes()
    # Blocks too small for a mapping of their own, between live ones, which keep the heap from shrinking.
    pairs = [(bytes(100_000), bytes(1000)) for _ in range(1000)]
    live = [small for _, small in pairs]
    del pairs
    async with asyncio.timeout(10):
        while resident_bytes() > before + (16 << 20):
            await asyncio.sleep(0.01)
    watching.cancel()
    assert len(live) == 1000
