"""The seed re-created keeps its barrier, and its contexts go to whoever has most in common with them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from benchmarks.bench.seed_server import Batcher, Context, Request, assign
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit


def request(*prompt: int, tell: Any = lambda text: None) -> Request:
    return Request(prompt, 4, tell)


def context(*prompt: int) -> Context:
    return Context(FakeBackend(), prompt)  # type: ignore[arg-type]


def test_request_takes_the_free_context_that_has_most_of_its_prompt() -> None:
    pool = [context(9, 9), context(1, 2, 3), context(1, 2)]
    first, second = request(1, 2, 3, 4), request(1, 2, 3, 5)
    assert [(pool.index(c), r) for c, r in assign(pool, [first, second])] == [(1, first), (2, second)]


class Held(Context):
    """A context that answers when it is let."""

    def __init__(self) -> None:
        super().__init__(FakeBackend())  # type: ignore[arg-type]
        self.begun: list[Request] = []
        self.gate = threading.Event()

    def run(self, request: Request) -> None:
        self.begun.append(request)
        assert self.gate.wait(20)
        request.tell(None)


async def test_next_batch_begins_only_when_the_last_reply_of_this_one_is_complete() -> None:
    contexts = [Held(), Held()]
    batcher = Batcher(contexts)
    loop = asyncio.get_running_loop()
    ended = [asyncio.Event() for _ in range(3)]
    requests = [request(n, tell=lambda text, e=e: loop.call_soon_threadsafe(e.set)) for n, e in enumerate(ended)]
    for waiting in requests[:2]:
        batcher.submit(waiting)
    running = asyncio.create_task(batcher.run())
    async with asyncio.timeout(20):
        while sum(len(c.begun) for c in contexts) < 2:
            await asyncio.sleep(0.001)
        batcher.submit(requests[2])
        short, long = contexts
        short.gate.set()
        await ended[requests.index(short.begun[0])].wait()
        await asyncio.sleep(0.05)
        assert sum(len(c.begun) for c in contexts) == 2
        long.gate.set()
        await ended[2].wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
