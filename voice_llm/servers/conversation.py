"""Conversation: one call behind Converse or WebSocket, over however many connections it takes."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from enum import Enum
from typing import Final

from ..config import SamplingParams
from ..errors import CallBusyError, EngineDeadError, EngineError, SlowConsumerError, VoiceLLMError, WrongStateError
from ..observer import Observer
from ..session import CallError, CallSession, Ended, Ready, SessionEvent
from ..session.contract import (
    ClientEvent,
    Confirm,
    Context,
    End,
    Interrupt,
    Params,
    Partial,
    Played,
    Start,
    ToolResult,
    Turn,
    Withdraw,
    check_event,
)
from .conversation_outbox import EventLog, Outbox
from .status import reply_to

__all__ = ["Conversation", "ConversationState", "error_event", "unforeseen"]

logger = logging.getLogger(__name__)

# A turn that is superseded or withdrawn is not over before the engine has let go of it, and its events are told.
_MAX_UNTOLD_TURNS: Final = 4

ParamsCheck = Callable[[Params, SamplingParams], SamplingParams]
"""Applies what a peer asked for to the sampling that holds without it, within the server's bounds."""


class ConversationState(Enum):
    """Where a call stands; moves only along ``_MOVES``."""

    STARTING = "starting"
    OPEN = "open"
    ENDING = "ending"
    ENDED = "ended"


_MOVES: Final = {
    ConversationState.STARTING: {ConversationState.OPEN, ConversationState.ENDING},
    ConversationState.OPEN: {ConversationState.ENDING},
    ConversationState.ENDING: {ConversationState.ENDED},
    ConversationState.ENDED: set[ConversationState](),
}


class Conversation:
    """One call: takes client events, tells server events to the connection that is attached, and keeps them.

    Args:
        session: The call.
        sampling: How its replies are drawn where a turn does not say.
        apply_params: Applies a turn's parameters.
        resume_s: How long it waits for a dropped connection.
        on_end: Called once, when it has freed all it held, before it tells its last event.
        is_alive: Whether the engine can still be used.
        observer: Is told of events that were refused.
    """

    def __init__(
        self,
        session: CallSession,
        *,
        sampling: SamplingParams,
        apply_params: ParamsCheck,
        resume_s: float,
        on_end: Callable[[], None],
        is_alive: Callable[[], bool],
        observer: Observer,
    ) -> None:
        self._session = session
        self._sampling = sampling
        self._apply_params = apply_params
        self._resume_s = resume_s
        self._on_end = on_end
        self._is_alive = is_alive
        self._observer = observer
        self._state = ConversationState.STARTING
        self._token = secrets.token_urlsafe(32)
        self._ready: Ready | None = None
        self._log = EventLog()
        self._outbox: Outbox | None = None
        self._opening: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._untold = 0
        self._ending: asyncio.Task[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        connection = "connected" if self._outbox is not None else "waiting"
        return f"<Conversation {self._session.call_id} [{self._state.value} | {connection}]>"

    @property
    def state(self) -> ConversationState:
        """Where it stands."""
        return self._state

    def open(self, outbox: Outbox, *, on_refused: Callable[[VoiceLLMError], None]) -> None:
        """Begin to start the call; ``ready`` tells when it can be used, an error of the outbox that it cannot.

        Args:
            outbox: Of the connection that asked for it.
            on_refused: Called with why it cannot be started.
        """
        self._outbox = outbox
        self._opening = asyncio.create_task(self._open(on_refused), name="voice-llm-call-start")

    def resume(self, token: str, last_turn_id: str, last_index: int, outbox: Outbox) -> bool:
        """Go on over another connection: ``ready`` again, then what the last one has missed, then what is to come.

        Returns:
            Whether the token is this call's.

        Raises:
            InvalidRequestError: The chunk that was received last was never sent.
        """
        known = hmac.compare_digest(token.encode(), self._token.encode())
        if not known or self._state is not ConversationState.OPEN or self._ready is None:
            return False
        missed = self._log.since(last_turn_id, last_index)
        if self._outbox is not None:
            # Its peer is often gone without the network having told: the one that knows the token is the caller.
            self._outbox.close(WrongStateError("another connection has taken the call over"), now=True)
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._outbox = outbox
        outbox.push(self._ready)
        for event in missed:
            outbox.push(event)
        return True

    def detach(self, outbox: Outbox) -> None:
        """Note that a connection is gone: the call waits for another one, unless it was not ready yet."""
        if self._outbox is not outbox:
            return
        self._outbox = None
        if self._state is ConversationState.STARTING:
            self.end("dropped")
        elif self._state is ConversationState.OPEN:
            self._expiry = asyncio.get_running_loop().call_later(self._resume_s, self.end, "dropped")

    def handle(self, event: ClientEvent) -> None:
        """Take a client event. What is not legal now, or not possible, is told as an error; the call goes on.

        Raises:
            EngineDeadError: No call can go on.
        """
        if isinstance(event, End):
            self.end(event.reason or "client")
            return
        try:
            check_event(event)
            if self._state is ConversationState.STARTING:
                raise WrongStateError("the call is not ready yet")
            if self._state is ConversationState.OPEN:
                self._apply(event)
        except EngineDeadError:
            raise
        except VoiceLLMError as e:
            self.refuse(e, turn_id=getattr(event, "turn_id", None))

    def refuse(self, error: VoiceLLMError, *, turn_id: str | None = None) -> None:
        """Tell of an event that had no effect; the next connection need not hear of it."""
        self._observer.event_refused(error.code)
        if self._outbox is not None:
            self._outbox.push(error_event(error, turn_id=turn_id))

    def end(self, reason: str) -> None:
        """End the call, in the background; once more is harmless."""
        if self._ending is None:
            self._move(ConversationState.ENDING)
            if self._outbox is not None:
                self._outbox.hurry()
            self._ending = asyncio.create_task(self._end(reason), name="voice-llm-call-end")

    def fail(self, error: VoiceLLMError, *, reason: str = "error") -> None:
        """End the call with an error as the last that the connection hears of it."""
        self._lose_connection(error)
        self.end(reason)

    async def wait_ended(self) -> None:
        """Wait until it has freed all it held."""
        if self._ending is not None:
            await asyncio.shield(self._ending)

    async def _open(self, on_refused: Callable[[VoiceLLMError], None]) -> None:
        try:
            ready = await self._session.start()
        except Exception as e:
            if self._state is not ConversationState.STARTING:
                return  # it has ended meanwhile, and so was not opened
            error = e if isinstance(e, VoiceLLMError) else unforeseen(e)
            on_refused(error)
            self.fail(error)
            return
        if self._state is ConversationState.STARTING:
            self._ready = Ready(ready.call_id, ready.usage, ready.prefill_ms, self._token)
            self._move(ConversationState.OPEN)
            self._tell(self._ready)

    def _apply(self, event: ClientEvent) -> None:
        match event:
            case Turn():
                self._begin(event)
            case Partial(text):
                self._session.partial(text)
            case Confirm(turn_id):
                self._session.confirm(turn_id)
            case Withdraw(turn_id):
                self._session.withdraw(turn_id)
            case Played(turn_id, index, played_ms):
                self._session.played(turn_id, index, played_ms)
            case Interrupt(spoken_text):
                self._session.interrupt(spoken_text)
            case Context(rag_context):
                self._session.set_context(rag_context or None)
            case ToolResult(tool_call_id, result):
                self._session.tool_result(tool_call_id, result)
            case Start() | End():
                raise WrongStateError("the call has been started already")

    def _begin(self, turn: Turn) -> None:
        if self._untold >= _MAX_UNTOLD_TURNS:
            raise CallBusyError(f"{self._untold} turns of the call are not over yet")
        params = turn.params or Params()
        events = self._session.start_turn(
            turn.text,
            turn_id=turn.turn_id,
            rag_context=turn.rag_context or None,
            params=self._apply_params(params, self._sampling),
            tool_choice=params.tool_choice or None,
            speculative=turn.speculative,
        )
        self._untold += 1
        self._telling = asyncio.create_task(self._tell_turn(events, self._telling), name="voice-llm-turn")

    async def _tell_turn(self, events: AsyncGenerator[SessionEvent, None], before: asyncio.Task[None] | None) -> None:
        """Tell a turn's events, all behind those of the turn that it has superseded."""
        if before is not None:
            await before
        try:
            async with aclosing(events):
                async for event in events:
                    self._tell(event)
                    await self._room()  # before the next one is taken, which an interruption may yet make void
            if not self._is_alive():
                raise EngineDeadError("the engine has ended during a turn")
        except Exception as e:
            self.fail(e if isinstance(e, VoiceLLMError) else unforeseen(e))
        finally:
            self._untold -= 1

    async def _room(self) -> None:
        """Let the reader catch up; one that does not loses the call, unless another one has taken its place."""
        outbox = self._outbox
        if outbox is None:
            return
        try:
            await outbox.room()
        except SlowConsumerError:
            if outbox is self._outbox:
                raise

    def _tell(self, event: SessionEvent) -> None:
        self._log.append(event)
        if self._outbox is not None:
            self._outbox.push(event)

    def _lose_connection(self, error: VoiceLLMError) -> None:
        if self._outbox is not None:
            self._outbox.close(error, now=isinstance(error, SlowConsumerError))
            self._outbox = None

    async def _end(self, reason: str) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        error: VoiceLLMError | None = None
        ended: Ended | None = None
        try:
            ended = await self._session.end(reason)
            for task in (self._opening, self._telling):
                if task is not None:
                    await asyncio.wait({task})
        except Exception as e:
            error = e if isinstance(e, VoiceLLMError) else unforeseen(e)
        finally:
            self._move(ConversationState.ENDED)
            self._on_end()
            if ended is not None:
                self._tell(ended)
            if self._outbox is not None:
                self._outbox.close(error)
                self._outbox = None

    def _move(self, state: ConversationState) -> None:
        if state not in _MOVES[self._state]:
            raise RuntimeError(f"a conversation cannot go from {self._state.value} to {state.value}")
        self._state = state


def unforeseen(error: BaseException) -> EngineError:
    """Return what an exception that is none of ours is passed on as; the log has it whole."""
    logger.error("a call failed: %s", type(error).__name__, exc_info=error)
    return EngineError(f"unforeseen: {type(error).__name__}")


def error_event(error: BaseException, *, turn_id: str | None = None) -> CallError:
    """Return what a peer is told of an error that does not end its call."""
    reply = reply_to(error)
    return CallError(reply.code, reply.message, reply.retry_after_s, turn_id=turn_id or None)
