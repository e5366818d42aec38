"""Place: one call's place in the engine, for a service."""

from __future__ import annotations

import asyncio

from ..errors import WrongStateError
from ..remote.face import CallFace, EngineFace

__all__ = ["Place"]


class Place:
    """Taken when it is first needed, and again where that failed; given back once.

    Args:
        engine: Where.
        tenant: Whose call it is.
        call_id: Its name; a random one by default.
    """

    def __init__(self, engine: EngineFace, *, tenant: str, call_id: str | None) -> None:
        self._engine = engine
        self._tenant = tenant
        self._call_id = call_id
        self._call: CallFace | None = None
        self._opening: asyncio.Future[None] | None = None
        self.given_back = False
        """Whether it is gone for good."""

    async def take(self) -> CallFace:
        """Return the call. Who gives up waiting does not stop it from being opened for the next.

        Raises:
            WrongStateError: It was given back, or the tenant has another call of that name.
            AtCapacityError: There is no room.
            EngineDeadError: The engine is closed or has died.
        """
        if self._call is None and not self.given_back:
            if self._opening is None:
                self._opening = asyncio.ensure_future(self._open())
                self._opening.add_done_callback(self._opened)
            await asyncio.shield(self._opening)
        if self._call is None:
            raise WrongStateError("the call is over")
        return self._call

    def give_back(self) -> None:
        """End the call without waiting; once more is harmless."""
        self.given_back = True
        call, self._call = self._call, None
        if call is not None:
            call.close_nowait()

    async def _open(self) -> None:
        self._call = await self._engine.open_call(call_id=self._call_id, tenant=self._tenant)
        if self.given_back:
            self.give_back()

    def _opened(self, opening: asyncio.Future[None]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # whoever waited has been told; where nobody did, nobody needs to be
