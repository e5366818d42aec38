"""What the tests of the session share: a call that leaves nothing behind, and what was told in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from voice_llm.observer import Observer
from voice_llm.runtime import Engine
from voice_llm.session import CallSession, Chunk, SessionEvent, SessionState, TurnEnd
from voice_llm.testing import FakeBackend

from ..runtime.helpers import GatedBackend, idle, prompts_made, running


@asynccontextmanager
async def calling(
    backend: FakeBackend | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    profile: dict[str, Any] | None = None,
    observer: Observer | None = None,
    start: bool = True,
    **options: Any,
) -> AsyncIterator[tuple[CallSession, Engine]]:
    """A call that leaves nothing behind: no open call, no sampler, no listener."""
    backend = backend or FakeBackend(sequences=1)
    async with running(backend, clock=clock, observer=observer, **(profile or {})) as engine:
        session = CallSession(engine, **options)
        if start:
            await session.start()
        try:
            yield session, engine
        finally:
            if isinstance(backend, GatedBackend):
                backend.release()
            await session.end()
            assert session.state is SessionState.ENDED
            await settled(engine)
            assert engine.health().open_calls == 0
            assert backend.open_samplers == 0


async def settled(engine: Engine) -> None:
    """Wait until all that was asked has been done, hints in the background too."""
    await prompts_made(engine)
    await idle(engine)
    async with asyncio.timeout(30):
        while engine._sinks:  # the last events may be on their way from the engine's thread
            await asyncio.sleep(0.001)


async def read(events: AsyncIterator[SessionEvent]) -> list[SessionEvent]:
    return [event async for event in events]


async def until_chunk(events: AsyncIterator[SessionEvent], count: int = 1) -> list[Chunk]:
    """Read so many chunks and leave the reply where it is."""
    chunks: list[Chunk] = []
    while len(chunks) < count:
        event = await anext(events)
        assert isinstance(event, Chunk)
        chunks.append(event)
    return chunks


def spoken(events: Sequence[SessionEvent]) -> str:
    return "".join(e.text for e in events if isinstance(e, Chunk))


def end_of(events: Sequence[SessionEvent]) -> TurnEnd:
    last = events[-1]
    assert isinstance(last, TurnEnd)
    assert sum(isinstance(e, TurnEnd) for e in events) == 1
    return last


def said(session: CallSession) -> list[str]:
    """What caller and assistant said, without the system message."""
    return [m.content for m in session.messages if m.role != "system"]


def held_text(engine: Engine) -> str:
    """What the only sequence holds."""
    assert isinstance(engine.backend, FakeBackend)
    return engine.backend.text_of(engine.backend.tokens_of(0))
