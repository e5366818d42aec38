"""What the tests of conversations share: a peer that speaks the call contract without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tests.servers.helpers import any_ports, edge_around
from voice_llm.config import Profile
from voice_llm.errors import InvalidRequestError
from voice_llm.observer import Observer
from voice_llm.servers.conversations import Conversations
from voice_llm.servers.edge import Edge
from voice_llm.servers.identity import Identity
from voice_llm.session import Chunk, Ready, SessionEvent, TurnEnd
from voice_llm.session.contract import ClientEvent, Start
from voice_llm.testing import FakeBackend

E = TypeVar("E", bound=SessionEvent)

TENANT = Identity("acme")
PATIENCE_S = 20.0


class Peer:
    """One connection: what it says goes in at once, what it is told is kept.

    Args:
        conversations: Where it calls.
        identity: Who it is.
        reads: Whether it reads what it is told from the start.
    """

    def __init__(self, conversations: Conversations, identity: Identity = TENANT, *, reads: bool = True) -> None:
        self.told: list[SessionEvent] = []
        self._said: asyncio.Queue[ClientEvent | InvalidRequestError | None] = asyncio.Queue()
        self._events = conversations.converse(self._incoming(), identity)
        self._news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        if reads:
            self.read()

    def read(self) -> None:
        """Begin to read."""
        self._reading = asyncio.create_task(self._read())
        # A test that does not ask how the connection ended means that any end will do.
        self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def take(self) -> SessionEvent:
        """Read one event, where nothing else reads."""
        async with asyncio.timeout(PATIENCE_S):
            event = await anext(self._events)
        self.told.append(event)
        return event

    def say(self, *events: ClientEvent | InvalidRequestError) -> None:
        for event in events:
            self._said.put_nowait(event)

    async def start(self, **options: Any) -> Ready:
        """Start a call and wait until it is ready."""
        self.say(Start(**options))
        return await self.until(Ready)

    async def until(self, kind: type[E], count: int = 1) -> E:
        """Wait until so many events of a kind were told; returns the last of them."""

        def found() -> E | None:
            events = self.all(kind)
            return events[count - 1] if len(events) >= count else None

        return await self.until_true(found)

    async def until_true(self, found: Callable[[], E | None]) -> E:
        """Wait until what was told is enough."""
        async with asyncio.timeout(PATIENCE_S):
            while (event := found()) is None:
                assert self._reading is not None
                if self._reading.done():
                    await self._reading
                    raise AssertionError(f"the connection is over: {self.told}")
                self._news.clear()
                await self._news.wait()
        return event

    def all(self, kind: type[E]) -> list[E]:
        """The events of a kind so far."""
        return [event for event in self.told if isinstance(event, kind)]

    async def to_the_end(self) -> list[SessionEvent]:
        """Wait for the last event, or the error that the connection ends with."""
        assert self._reading is not None
        async with asyncio.timeout(PATIENCE_S):
            await self._reading
        return self.told

    def hang_up(self) -> None:
        """Say no more."""
        self._said.put_nowait(None)

    async def vanish(self) -> None:
        """Stop reading, as a transport whose peer is gone; what was not read yet is lost."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._events.aclose()

    async def _incoming(self) -> AsyncGenerator[ClientEvent | InvalidRequestError, None]:
        while (event := await self._said.get()) is not None:
            yield event

    async def _read(self) -> None:
        try:
            async for event in self._events:
                self.told.append(event)
                self._news.set()
        finally:
            self._news.set()


@asynccontextmanager
async def calling(
    backend: FakeBackend | None = None,
    *,
    observer: Observer | None = None,
    served: Profile | None = None,
    max_calls: int | None = None,
    **config: Any,
) -> AsyncIterator[Edge]:
    """An edge that leaves no call, no admission and no task behind."""
    before = asyncio.all_tasks()
    async with edge_around(
        backend, config=any_ports(**config), observer=observer, served=served, max_calls=max_calls
    ) as edge:
        yield edge
        await edge.conversations.close()
        assert (len(edge.conversations), edge.host.lent) == (0, 0)
    left = {task.get_name() for task in asyncio.all_tasks() - before if task.get_name().startswith("voice-llm-")}
    assert left <= {"voice-llm-connection"}, left


def spoken(events: Sequence[SessionEvent], turn_id: str | None = None) -> str:
    """The words of the chunks, of one turn or of all."""
    return "".join(e.text for e in events if isinstance(e, Chunk) and turn_id in (None, e.turn_id))


def ends(events: Sequence[SessionEvent]) -> list[tuple[str, str]]:
    """Which turns ended, and how."""
    return [(e.turn_id, e.finish_reason.value) for e in events if isinstance(e, TurnEnd)]
