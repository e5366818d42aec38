"""Conversations: the calls behind Converse and WebSocket. Admitted, pinned until they end, resumable where dropped."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack
from typing import Final
from uuid import uuid4

from ..config import SamplingParams, ServerConfig
from ..errors import (
    AtCapacityError,
    DrainingError,
    InvalidRequestError,
    LoadingError,
    NotFoundError,
    VoiceLLMError,
    WrongStateError,
)
from ..observer import Observer
from ..runtime import Engine
from ..session import CallSession, Ended, SessionEvent
from ..session.contract import ClientEvent, End, Params, Start, check_event
from .conversation import Conversation, error_event, unforeseen
from .conversation_outbox import Outbox
from .host import EngineHost
from .identity import Identity
from .status import RETRY_AFTER_S

__all__ = ["Conversations"]

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 5.0
_START_WITHIN_S: Final = 10.0


class Conversations:
    """Holds the calls of all connections.

    Args:
        host: Lends the engine.
        config: Bounds.
        patience_s: How long a full connection waits for its peer to take an event before the call is given up.
        start_within_s: How long a connection may go on without a call.
    """

    def __init__(
        self,
        host: EngineHost,
        config: ServerConfig,
        *,
        patience_s: float = _PATIENCE_S,
        start_within_s: float = _START_WITHIN_S,
    ) -> None:
        self._host = host
        self._config = config
        self._patience_s = patience_s
        self._start_within_s = start_within_s
        self._calls: dict[tuple[str, str], Conversation] = {}

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def observer(self) -> Observer:
        """Who is told what happens."""
        return self._host.observer

    def __repr__(self) -> str:
        return f"<Conversations [{len(self)} calls]>"

    async def converse(
        self, incoming: AsyncIterator[ClientEvent | InvalidRequestError], identity: Identity
    ) -> AsyncGenerator[SessionEvent, None]:
        """Hold a call over one connection.

        Args:
            incoming: What the peer says; an event that could not be read is the error that says why. Where it ends
                without ``End``, and where the reader of the output goes away, the connection counts as dropped: the
                call is kept for a while, and taken up again by a ``Start`` with its id and token.
            identity: Who the peer is.

        Yields:
            The call's events; ``Ended`` is the last, where the call ends. The reader closes the iterator
            (``contextlib.aclosing``) where it leaves early.

        Raises:
            InvalidRequestError: The first event cannot be read, the call cannot be started as asked, or no event
                starts one for too long.
            NotFoundError: There is no such profile, adapter, or call to take up.
            AtCapacityError: There is no room, for the tenant or at all.
            LoadingError: The engine is not ready.
            DrainingError: Nothing new is taken.
            WrongStateError: A call of that id is open, or another connection has taken this one over.
            SlowConsumerError: The output was not read for too long; the call is over.
            EngineDeadError: No call can go on.
        """
        connection = _Connection(self, identity, Outbox(self._patience_s))
        reading = asyncio.create_task(connection.listen(incoming), name="voice-llm-connection")
        deadline = asyncio.get_running_loop().call_later(
            self._start_within_s, connection.give_up, f"no call was started within {self._start_within_s:g} s"
        )
        try:
            while (event := await connection.outbox.next()) is not None:
                yield event
        finally:
            deadline.cancel()
            connection.drop()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def close(self) -> None:
        """End all calls: the server is about to end; idempotent."""
        calls = list(self._calls.values())
        for call in calls:
            call.fail(DrainingError(retry_after_s=RETRY_AFTER_S["draining"]), reason="server_closed")
        await asyncio.gather(*(call.wait_ended() for call in calls))

    def begin(self, start: Start, identity: Identity, outbox: Outbox) -> Conversation:
        """Start a call, or take one up again, for a connection.

        Raises:
            VoiceLLMError: As ``converse``.
        """
        check_event(start)
        if start.resume_token:
            return self._resume(start, identity, outbox)
        try:
            return self._admit(start, identity, outbox)
        except VoiceLLMError as e:
            self._refused(e)
            raise

    def _resume(self, start: Start, identity: Identity, outbox: Outbox) -> Conversation:
        for (tenant, call_id), call in self._calls.items():
            mine = tenant == identity.tenant and start.call_id == call_id
            if mine and call.resume(start.resume_token, start.last_turn_id, start.last_index, outbox):
                return call
        raise NotFoundError("there is no call of that id and token to take up again")

    def _admit(self, start: Start, identity: Identity, outbox: Outbox) -> Conversation:
        name = (identity.tenant, start.call_id or uuid4().hex)
        with ExitStack() as held:
            engine = held.enter_context(self._host.admit(identity.tenant))
            self._check_start(start, engine)
            if name in self._calls:
                raise WrongStateError("a call of that id is open")
            sampling = self._apply_params(start.params, engine.profile.sampling)
            session = CallSession(
                engine,
                call_id=name[1],
                tenant=name[0],
                system_prompt=start.system_prompt,
                rag_context=start.rag_context or None,
                history=start.history,
                params=sampling,
                tools=start.tools,
                tool_choice=start.params.tool_choice or "auto",
                language=start.language or None,
            )
            admission = held.pop_all()

        def ended() -> None:
            del self._calls[name]
            admission.close()

        call = self._calls[name] = Conversation(
            session,
            sampling=sampling,
            apply_params=self._apply_params,
            resume_s=self._config.resume_s,
            on_end=ended,
            is_alive=lambda: engine.is_alive,
            observer=self._host.observer,
        )
        call.open(outbox, on_refused=self._refused)
        return call

    def _check_start(self, start: Start, engine: Engine) -> None:
        profile = engine.profile
        if start.profile and start.profile != profile.name:
            raise NotFoundError(f"the profile {start.profile!r} is not served here; {profile.name!r} is")
        if len(start.history) > self._config.max_messages:
            raise InvalidRequestError(
                f"the history has {len(start.history)} messages, more than {self._config.max_messages}", param="history"
            )

    def _apply_params(self, params: Params, sampling: SamplingParams) -> SamplingParams:
        most = self._config.max_reply_tokens
        if params.max_tokens is not None and params.max_tokens > most:
            raise InvalidRequestError(f"max_tokens must be at most {most}, not {params.max_tokens}", param="max_tokens")
        return params.apply(dataclasses.replace(sampling, max_tokens=min(sampling.max_tokens, most)))

    def _refused(self, error: VoiceLLMError) -> None:
        if isinstance(error, (AtCapacityError, LoadingError, DrainingError)):
            self._host.observer.call_refused(error.code)


class _Connection:
    """One connection's way through its events: nothing yet, then a call, until either ends."""

    def __init__(self, conversations: Conversations, identity: Identity, outbox: Outbox) -> None:
        self.outbox = outbox
        self._conversations = conversations
        self._identity = identity
        self._call: Conversation | None = None
        self._heard = False

    def drop(self) -> None:
        """Note that the peer is gone."""
        self.outbox.close()
        if self._call is not None:
            self._call.detach(self.outbox)

    def give_up(self, why: str) -> None:
        """End a connection that has started no call."""
        if self._call is None:
            self.outbox.close(InvalidRequestError(why))

    async def listen(self, incoming: AsyncIterator[ClientEvent | InvalidRequestError]) -> None:
        """Take what the peer says until it says no more."""
        ending = False
        try:
            async for event in incoming:
                await self.outbox.room()
                if self.outbox.closed:
                    break  # what a connection says that is over, or was taken over, is not the call's any more
                ending = isinstance(event, End)
                self._take_safely(event)
                if ending:
                    break
                await asyncio.sleep(0)  # where much is waiting to be read, reading does not let others run
        except VoiceLLMError as e:
            self._fail(e)
        except Exception as e:
            logger.warning("a connection has broken: %s", type(e).__name__)
        if not ending:
            self.drop()

    def _take_safely(self, event: ClientEvent | InvalidRequestError) -> None:
        """Take an event; what nobody has foreseen is no broken connection, but an internal error."""
        try:
            self._take(event)
        except VoiceLLMError:
            raise
        except Exception as e:
            raise unforeseen(e) from e

    def _take(self, event: ClientEvent | InvalidRequestError) -> None:
        first, self._heard = not self._heard, True
        if isinstance(event, InvalidRequestError):
            if first:
                raise event
            self._tell_error(event)
        elif self._call is not None:
            self._call.handle(event)
        elif isinstance(event, Start):
            self._call = self._conversations.begin(event, self._identity, self.outbox)
        elif isinstance(event, End):
            self.outbox.push(Ended(event.reason or "client", 0))
            self.outbox.close()
        else:
            self._tell_error(WrongStateError("the call has not been started"))

    def _tell_error(self, error: VoiceLLMError) -> None:
        if self._call is None:
            self._conversations.observer.event_refused(error.code)
            self.outbox.push(error_event(error))
        else:
            self._call.refuse(error)

    def _fail(self, error: VoiceLLMError) -> None:
        if self._call is None or self.outbox.closed:
            self.outbox.close(error)
        else:
            self._call.fail(error)
