"""SoftCalls: requests that share a call id share one call's cache. Nobody says when such a call ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from ..errors import AtCapacityError, CallBusyError, NotFoundError
from ..runtime import Call, Engine
from .host import EngineHost
from .identity import Identity

__all__ = ["SoftCalls"]

logger = logging.getLogger(__name__)

_SWEEP_EVERY_S: Final = 1.0
_SWEEP_AT_MOST_EVERY_S: Final = 0.01


@dataclass(slots=True, eq=False)
class _Kept:
    call: Call
    used_s: float
    busy: bool = False


class SoftCalls:
    """Keeps the calls that are known only by their id: dropped after a while without a request, or for want of room.

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
    async def use(self, identity: Identity, call_id: str | None) -> AsyncIterator[tuple[Engine, Call]]:
        """Lend a call for one request; without an id it is one for this request alone.

        Raises:
            LoadingError: The engine is not ready.
            DrainingError: Nothing new is taken.
            CallBusyError: A request of that id is running.
            AtCapacityError: There is no room, for the tenant or at all.
        """
        with self._host.admit(identity.tenant) as engine:
            if call_id is None:
                async with await self._make(engine, (identity.tenant, uuid4().hex)) as call:
                    yield engine, call
                return
            name = (identity.tenant, call_id)
            kept = await self._take(engine, name)
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
