"""SoftCalls: requests of one call share its cache, tied by an id or by their history; nobody ends such a call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from ..errors import AtCapacityError, CallBusyError, NotFoundError
from ..prompt import Message
from ..runtime import Call, Engine
from .host import EngineHost
from .identity import Identity

__all__ = ["ChatHistory", "SoftCalls"]

logger = logging.getLogger(__name__)

_SWEEP_EVERY_S: Final = 1.0
_SWEEP_AT_MOST_EVERY_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class ChatHistory:
    """What a request says of the chat that it goes on with."""

    messages: tuple[Message, ...]
    rag_context: str | None = None

    def goes_on_from(self, earlier: ChatHistory) -> bool:
        """Whether all of an earlier request stands at the beginning of this one."""
        return self.rag_context == earlier.rag_context and self.messages[: len(earlier.messages)] == earlier.messages


@dataclass(slots=True, eq=False)
class _Kept:
    call: Call
    used_s: float
    busy: bool = False
    chat: ChatHistory | None = None


class SoftCalls:
    """Keeps the calls that nobody ends: dropped after a while without a request, or for want of room.

    A request with an id belongs to the call of that id. One without, whose chat begins with all of an earlier one of
    the same tenant, goes on with what that one has in the cache.

    Args:
        host: Lends the engine.
        idle_s: How long a call is kept without a request.
    """

    def __init__(self, host: EngineHost, *, idle_s: float) -> None:
        self._host = host
        self._idle_s = idle_s
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._opening: set[tuple[str, str]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._kept)

    @asynccontextmanager
    async def use(
        self, identity: Identity, call_id: str | None, chat: ChatHistory | None = None
    ) -> AsyncIterator[tuple[Engine, Call]]:
        """Lend a call for one request.

        Args:
            identity: Who is asking.
            call_id: The call's name; None for a request that names none.
            chat: What such a request says, to be known again by; without it the call is for this request alone.

        Raises:
            LoadingError: The engine is not ready.
            DrainingError: Nothing new is taken.
            CallBusyError: A request of that id is running.
            AtCapacityError: There is no room, for the tenant or at all.
        """
        with self._host.admit(identity.tenant) as engine:
            if call_id is None and chat is None:
                async with await self._make(engine, (identity.tenant, uuid4().hex)) as call:
                    yield engine, call
                return
            name = (identity.tenant, call_id) if call_id is not None else self._going_on(identity.tenant, chat)
            kept = await self._take(engine, name)
            kept.chat = chat if call_id is None else None
            try:
                yield engine, kept.call
            finally:
                kept.busy = False
                kept.used_s = engine.clock()

    async def drop(self, identity: Identity, call_id: str) -> None:
        """End a call.

        Raises:
            NotFoundError: The tenant has no such call.
        """
        kept = self._kept.pop((identity.tenant, call_id), None)
        if kept is None:
            raise NotFoundError(f"there is no call {call_id!r}")
        await kept.call.close()

    async def close(self) -> None:
        """End all calls; idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        for kept in self._kept.values():
            kept.call.close_nowait()
        self._kept.clear()

    def _going_on(self, tenant: str, chat: ChatHistory | None) -> tuple[str, str]:
        """Return the name of the nameless call that a chat goes on with; a new one where there is none."""
        known = [
            (len(kept.chat.messages), kept.used_s, name)
            for name, kept in self._kept.items()
            if name[0] == tenant and not kept.busy and kept.chat is not None and chat and chat.goes_on_from(kept.chat)
        ]
        return max(known)[2] if known else (tenant, uuid4().hex)

    async def _take(self, engine: Engine, name: tuple[str, str]) -> _Kept:
        kept = self._kept.get(name)
        if (kept is not None and kept.busy) or name in self._opening:
            raise CallBusyError(f"call {name[1]!r} already has a running request")
        if kept is None:
            kept = await self._open(engine, name)
        kept.busy = True
        return kept

    async def _open(self, engine: Engine, name: tuple[str, str]) -> _Kept:
        self._opening.add(name)
        try:
            call = await self._make(engine, name)
        finally:
            self._opening.discard(name)
        kept = self._kept[name] = _Kept(call, engine.clock())
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep(engine), name="voice-llm-soft-calls")
        return kept

    async def _make(self, engine: Engine, name: tuple[str, str]) -> Call:
        tenant, call_id = name
        try:
            return await engine.open_call(call_id=call_id, tenant=tenant, soft=True)
        except AtCapacityError:
            if not self._drop_oldest(tenant):
                raise
        return await engine.open_call(call_id=call_id, tenant=tenant, soft=True)

    def _drop_oldest(self, tenant: str) -> bool:
        """Drop the call that has been quiet for longest, of the tenant itself where it has one."""
        idle = [(name[0] != tenant, kept.used_s, name) for name, kept in self._kept.items() if not kept.busy]
        if not idle:
            return False
        *_, name = min(idle)
        self._kept.pop(name).call.close_nowait()
        return True

    async def _sweep(self, engine: Engine) -> None:
        """Drop what has been quiet for too long; ends when nothing is kept."""
        while self._kept:
            await asyncio.sleep(max(_SWEEP_AT_MOST_EVERY_S, min(_SWEEP_EVERY_S, self._idle_s)))
            limit_s = engine.clock() - self._idle_s
            for name in [n for n, kept in self._kept.items() if not kept.busy and kept.used_s <= limit_s]:
                self._kept.pop(name).call.close_nowait()
