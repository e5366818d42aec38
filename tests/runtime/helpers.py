"""What the tests of the runtime share: a small profile, a backend with a gate, an engine that ends clean."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final

from voice_llm.backend import BatchEntry
from voice_llm.config import Profile
from voice_llm.config.profile import ModelSource
from voice_llm.errors import BackendError
from voice_llm.events import Finished, GenerateEvent, SentenceChunk, TextDelta
from voice_llm.observer import Observer
from voice_llm.runtime import Engine, ReplyStream
from voice_llm.testing import FakeBackend

_PATIENCE_S: Final = 20.0


class GatedBackend(FakeBackend):
    """Stops before a decode where told, and raises ``fatal`` there if that is set."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gate = threading.Event()
        self._is_held = threading.Event()
        self._hold_at: int | None = None
        self.fatal: BaseException | None = None

    def decode(self, entries: Sequence[BatchEntry]) -> int:
        if self._hold_at is not None and self.counters.sampled_tokens >= self._hold_at:
            self._is_held.set()
            if not self._gate.wait(_PATIENCE_S):
                raise BackendError("the test never opened the gate")
        if self.fatal is not None:
            raise self.fatal
        return super().decode(entries)

    def hold(self, *, after_tokens: int = 0) -> None:
        """Let the first decode wait that comes after so many more sampled tokens; the engine must be idle now."""
        self._gate.clear()
        self._is_held.clear()
        self._hold_at = self.counters.sampled_tokens + after_tokens

    def release(self) -> None:
        self._hold_at = None
        self._gate.set()

    def wait_until_held(self) -> None:
        """Wait until a decode waits at the gate; all events of the steps before have been delivered then."""
        assert self._is_held.wait(_PATIENCE_S)

    async def held(self) -> None:
        """As ``wait_until_held``, without blocking the loop."""
        await asyncio.to_thread(self.wait_until_held)


def profile(**options: Any) -> Profile:
    return Profile(name="test", model=ModelSource(path="none.gguf"), **options)


@asynccontextmanager
async def running(
    backend: FakeBackend | None = None,
    *,
    max_calls: int | None = None,
    clock: Callable[[], float] = time.monotonic,
    observer: Observer | None = None,
    **options: Any,
) -> AsyncIterator[Engine]:
    """An engine that is closed at the end, and has then lost nothing: no sampler, no listener, no model."""
    backend = backend or FakeBackend()
    engine = await Engine.start(backend, profile(**options), max_calls=max_calls, clock=clock, observer=observer)
    try:
        yield engine
    finally:
        if isinstance(backend, GatedBackend):
            backend.release()
        await engine.close()
        await asyncio.sleep(0)
        assert backend.closed
        assert backend.open_samplers == 0
        assert engine._worker._thread not in threading.enumerate()
        assert isinstance(engine._prompts, ThreadPoolExecutor)
        assert not engine._prompts._threads & set(threading.enumerate())


def user(*said: str) -> list[dict[str, str]]:
    """A history: caller and assistant take turns, the caller first."""
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)]


async def read(stream: ReplyStream) -> list[GenerateEvent]:
    return [event async for event in stream]


async def read_text(stream: ReplyStream) -> str:
    return text_of(await read(stream))


def text_of(events: Sequence[GenerateEvent]) -> str:
    return "".join(e.text for e in events if isinstance(e, TextDelta))


def chunks_of(events: Sequence[GenerateEvent]) -> list[SentenceChunk]:
    return [e for e in events if isinstance(e, SentenceChunk)]


def finished_of(events: Sequence[GenerateEvent]) -> Finished:
    last = events[-1]
    assert isinstance(last, Finished)
    assert sum(isinstance(e, Finished) for e in events) == 1
    return last


async def prompts_made(engine: Engine) -> None:
    """Wait until the prompt thread has passed on all that was asked so far."""
    await asyncio.sleep(0)
    await asyncio.get_running_loop().run_in_executor(engine._prompts, lambda: None)


async def idle(engine: Engine) -> None:
    """Wait until the engine has nothing left to do, and check it."""
    for _ in range(2000):
        if not await engine._run(lambda: engine._batcher.has_work):
            break
    else:
        raise AssertionError("the engine does not come to rest")
    await engine.check_integrity()
