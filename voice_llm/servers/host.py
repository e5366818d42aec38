"""EngineHost: the engine as servers see it: being loaded, ready, draining, or gone."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

from ..errors import AtCapacityError, DrainingError, LoadingError
from ..observer import Observer
from ..runtime import Engine
from .status import RETRY_AFTER_S

__all__ = ["EngineHost", "HostState"]

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0


class HostState(Enum):
    """Where the engine stands; moves only along ``_MOVES``."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    CLOSED = "closed"


_MOVES: Final = {
    HostState.LOADING: {HostState.READY, HostState.FAILED, HostState.DRAINING, HostState.CLOSED},
    HostState.READY: {HostState.DRAINING, HostState.FAILED, HostState.CLOSED},
    HostState.DRAINING: {HostState.FAILED, HostState.CLOSED},
    HostState.FAILED: {HostState.CLOSED},
    HostState.CLOSED: set[HostState](),
}


class EngineHost:
    """Loads an engine in the background and lends it to servers while it can be used.

    Args:
        load: Makes the engine.
        profile_name: What it is loaded with.
        observer: Is told what happens at the edges.
        max_per_tenant: Most calls and requests of one tenant at once; None for no bound but the engine's.
        give_up_s: How long a stalled engine is waited for, since only a new process is of use then.

    Attributes:
        profile_name: What the engine is loaded with.
        observer: Is told what happens at the edges.
        failed: Set once the engine cannot be used any more, or could not be loaded: the process should end.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[Engine]],
        *,
        profile_name: str,
        observer: Observer | None = None,
        max_per_tenant: int | None = None,
        give_up_s: float = 60.0,
    ) -> None:
        self.profile_name = profile_name
        self.observer = observer or Observer()
        self.failed = asyncio.Event()
        self.error: BaseException | None = None
        """Why it failed."""
        self._load = load
        self._give_up_s = give_up_s
        self._state = HostState.LOADING
        self._engine: Engine | None = None
        self._max_per_tenant = max_per_tenant
        self._lent: Counter[str] = Counter()
        self._none_lent = asyncio.Event()
        self._none_lent.set()
        self._settled = asyncio.Event()  # loaded, or given up
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<EngineHost {self.profile_name} [{self._state.value} | lent: {self.lent}]>"

    @property
    def state(self) -> HostState:
        """Where the engine stands."""
        return self._state

    @property
    def engine(self) -> Engine | None:
        """The engine, once it is loaded; to look at, while ``admit`` is the way to use it."""
        return self._engine

    @property
    def lent(self) -> int:
        """How many calls and requests use the engine now."""
        return self._lent.total()

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="voice-llm-host")

    def require(self) -> Engine:
        """Return the engine for what is part of a call that was admitted before.

        Raises:
            LoadingError: It is not loaded yet, or has failed and will be loaded anew.
        """
        if self._engine is None or self._state in (HostState.FAILED, HostState.CLOSED):
            raise LoadingError(retry_after_s=RETRY_AFTER_S["loading"])
        return self._engine

    def check_not_draining(self) -> None:
        """Check that the server is not about to end, which explains why something else has.

        Raises:
            DrainingError: It is.
        """
        if self._state is HostState.DRAINING:
            raise DrainingError(retry_after_s=RETRY_AFTER_S["draining"])

    @contextmanager
    def admit(self, tenant: str) -> Iterator[Engine]:
        """Lend the engine to a new call or request of a tenant; the server ends only when all of them have.

        Raises:
            AtCapacityError: The tenant has as many as it may.
            LoadingError: It is not loaded yet, or has failed and will be loaded anew.
            DrainingError: Nothing new is taken.
        """
        self.check_not_draining()
        engine = self.require()
        if self._max_per_tenant is not None and self._lent[tenant] >= self._max_per_tenant:
            raise AtCapacityError(f"the tenant has {self._lent[tenant]} calls, as many as it may")
        self._lent[tenant] += 1
        self._none_lent.clear()
        try:
            yield engine
        finally:
            self._lent[tenant] -= 1
            self._lent += Counter()  # forgets who has none
            if not self._lent:
                self._none_lent.set()

    async def wait_ready(self) -> Engine:
        """Wait until the engine is loaded.

        Raises:
            Exception: It cannot be loaded, and why.
        """
        await self._settled.wait()
        if self.error is not None:
            raise self.error
        return self.require()

    async def drain(self, within_s: float) -> bool:
        """Take nothing new and wait for what is under way; returns whether all of it has ended in time."""
        if self._state in (HostState.LOADING, HostState.READY):
            self._move(HostState.DRAINING)
        try:
            await asyncio.wait_for(self._none_lent.wait(), within_s)
        except TimeoutError:
            logger.warning("%d calls and requests have not ended in %.0f s", self.lent, within_s)
            return False
        return True

    async def close(self) -> None:
        """End everything and free the model; idempotent."""
        if self._state is not HostState.CLOSED:
            self._move(HostState.CLOSED)
        self._settled.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._engine is not None:
            await self._engine.close()

    async def _run(self) -> None:
        try:
            self._engine = await self._load()
        except Exception as e:
            logger.error("the engine cannot be loaded: %s", e)
            self._fail(e)
            return
        if self._state is HostState.LOADING:
            self._move(HostState.READY)
        self._settled.set()
        await self._watch(self._engine)

    async def _watch(self, engine: Engine) -> None:
        """See a dead engine, which no request might ever meet, and one that is stuck in native code."""
        healthy_s = asyncio.get_running_loop().time()
        while self._state in (HostState.READY, HostState.DRAINING):
            now_s = asyncio.get_running_loop().time()
            if engine.health().healthy:
                healthy_s = now_s
            if not engine.is_alive or now_s - healthy_s > self._give_up_s:
                logger.error("the engine cannot be used any more: %s", engine.health().detail)
                self._fail(None)
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    def _fail(self, error: BaseException | None) -> None:
        self.error = error
        if self._state is not HostState.CLOSED:
            self._move(HostState.FAILED)
        self.failed.set()
        self._settled.set()

    def _move(self, state: HostState) -> None:
        if state not in _MOVES[self._state]:
            raise RuntimeError(f"a host cannot go from {self._state.value} to {state.value}")
        self._state = state
