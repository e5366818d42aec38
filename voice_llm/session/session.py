"""CallSession: one phone conversation. A ``Call`` with a history, turns and barge-in; what transports talk to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

from ..config import SamplingParams
from ..errors import AtCapacityError, ContextTooLongError, InvalidRequestError, VoiceLLMError, WrongStateError
from ..events import Finished, FinishReason, SentenceChunk, Thought, Timings, Usage
from ..prompt import Message
from ..runtime import Call, Engine, ReplyStream
from .events import CallError, CallThought, Chunk, Ended, Ready, SessionEvent, TurnEnd
from .history import History, Playback

__all__ = ["CallSession", "SessionState"]

logger = logging.getLogger(__name__)


class SessionState(Enum):
    """Where a session stands; moves only along ``_MOVES``."""

    NEW = "new"
    LISTENING = "listening"
    TALKING = "talking"
    ENDED = "ended"


_MOVES: Final = {
    SessionState.NEW: {SessionState.LISTENING, SessionState.ENDED},
    SessionState.LISTENING: {SessionState.TALKING, SessionState.ENDED},
    SessionState.TALKING: {SessionState.TALKING, SessionState.LISTENING, SessionState.ENDED},
    SessionState.ENDED: set[SessionState](),
}


@dataclass(slots=True, eq=False)
class _Turn:
    turn_id: str
    question: Message
    stream: ReplyStream
    playback: Playback
    settled: bool = False


class CallSession:
    """One phone conversation.

    Args:
        engine: Where it runs.
        call_id: The transport's name for the call; a fresh one by default.
        tenant: Whose call it is.
        system_prompt: The call's own instructions, after the profile's, which so stay a prefix that all calls share.
        rag_context: Retrieved text for the whole call.
        history: What was said before.
        params: How replies are drawn; the profile's sampling by default.

    Example:
        >>> async with CallSession(engine) as session:
        ...     await session.start()
        ...     async for event in session.turn("Is water damage covered?"):
        ...         print(event)
    """

    def __init__(
        self,
        engine: Engine,
        *,
        call_id: str | None = None,
        tenant: str = "default",
        system_prompt: str = "",
        rag_context: str | None = None,
        history: Iterable[Message] = (),
        params: SamplingParams | None = None,
    ) -> None:
        self.call_id = call_id or uuid4().hex
        self._engine = engine
        self._tenant = tenant
        self._rag_context = rag_context
        self._params = params or engine.profile.sampling
        prompts = (engine.profile.system_prompt.strip(), system_prompt.strip())
        self._history = History("\n\n".join(p for p in prompts if p), history)
        self._state = SessionState.NEW
        self._call: Call | None = None
        self._turn: _Turn | None = None
        self._last_turn: _Turn | None = None
        self._turns = 0
        self._usage = Usage()
        self._uncounted: list[ReplyStream] = []
        self._started_s = engine.clock()
        self._hint: list[Message] | None = None
        self._hinting: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<CallSession {self.call_id} [{self._state.value} | turns: {self._turns}]>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end("error" if error else "closed")

    @property
    def state(self) -> SessionState:
        """Where the session stands."""
        return self._state

    @property
    def messages(self) -> list[Message]:
        """The history, as far as it was heard."""
        return self._history.messages

    async def start(self, *, prefill: bool = True) -> Ready:
        """Admit the call and bring its opening prompt into the cache.

        Args:
            prefill: Whether to compute the opening prompt now, while the phone rings.

        Raises:
            AtCapacityError: As many calls are open as may be.
            WrongStateError: The session has been started or ended, or the tenant has an open call of that id.
            ContextTooLongError: The opening prompt does not fit.
        """
        self._require(SessionState.NEW)
        arrival_s = self._engine.clock()
        call = await self._engine.open_call(call_id=self.call_id, tenant=self._tenant)
        if self._state is not SessionState.NEW:
            await call.close()
            raise WrongStateError("the call has ended while it was being opened")
        self._call = call
        self._move(SessionState.LISTENING)
        if not prefill:
            return Ready(self.call_id, Usage(), 0.0)
        messages = self._history.with_caller("")
        done = await self._call.prefill(messages, rag_context=self._rag_context, arrival_s=arrival_s)
        return Ready(self.call_id, done.usage, (self._engine.clock() - arrival_s) * 1e3)

    async def turn(
        self,
        text: str,
        *,
        turn_id: str | None = None,
        rag_context: str | None = None,
        params: SamplingParams | None = None,
    ) -> AsyncIterator[SessionEvent]:
        """Answer the caller. A turn that still runs is superseded: it ends ``interrupted``.

        Args:
            text: What the caller said.
            turn_id: The transport's name for the turn.
            rag_context: Text retrieved for this question; it stays in the history with it.
            params: How this reply is drawn.

        Yields:
            ``Chunk`` and ``CallThought`` as they come, a ``CallError`` where the turn fails, and ``TurnEnd`` last. A
            turn that is refused, for its length or for what is in it, leaves nothing in the history.

        Raises:
            WrongStateError: The session is not started or has ended.
            EngineDeadError: The engine has died.
        """
        self._require(SessionState.LISTENING, SessionState.TALKING)
        if self._turn is not None:
            self.interrupt()
        self._hint = None
        call = self._open_call()
        messages = self._history.with_caller(text, rag_context)
        stream = call.generate(messages, params or self._params, rag_context=self._rag_context)
        question = self._history.caller_said(text, rag_context)
        playback = Playback(self._engine.profile.speaking_rate_chars_per_s, self._engine.clock)
        turn = _Turn(turn_id or f"t{self._turns + 1}", question, stream, playback)
        self._turn = self._last_turn = turn
        self._uncounted.append(stream)
        self._turns += 1
        self._move(SessionState.TALKING)
        try:
            async for event in self._events(turn):
                yield event
        finally:
            stream.cancel()
            self._settle(turn, turn.playback.text)

    def partial(self, text: str) -> None:
        """Take note of what the caller has said so far: it is prefilled in idle room, and never answered.

        Raises:
            WrongStateError: The session is not started or has ended.
        """
        self._require(SessionState.LISTENING, SessionState.TALKING)
        if self._state is SessionState.LISTENING:
            self._prefill_soon(self._history.with_caller(text))

    def played(self, turn_id: str, index: int, played_ms: int) -> None:
        """Take note of what the caller has heard: chunk ``index`` for ``played_ms``, and all before it.

        Raises:
            WrongStateError: The session is not started or has ended.
        """
        self._require(SessionState.LISTENING, SessionState.TALKING)
        if self._last_turn is not None and self._last_turn.turn_id == turn_id:
            self._last_turn.playback.played(index, played_ms)

    def interrupt(self, spoken_text: str | None = None) -> None:
        """Stop the running reply; only what was heard stays in the history.

        Without a running turn it only corrects what was heard of the last one.

        Args:
            spoken_text: What was heard. Where it is None the playback reports count, and without any the speaking rate.

        Raises:
            WrongStateError: The session is not started or has ended.
        """
        self._require(SessionState.LISTENING, SessionState.TALKING)
        turn = self._last_turn
        if turn is None:
            return
        turn.playback.stop()
        heard = turn.playback.heard() if spoken_text is None else spoken_text
        if turn is self._turn:
            turn.stream.cancel(FinishReason.INTERRUPTED)
            self._settle(turn, heard)
        else:
            self._history.correct_last_reply(heard)
            self._prefill_soon(self._history.with_caller(""))

    def set_context(self, rag_context: str | None) -> None:
        """Replace the call's retrieved text, from the next turn on.

        Raises:
            WrongStateError: The session is not started or has ended.
        """
        self._require(SessionState.LISTENING, SessionState.TALKING)
        self._rag_context = rag_context
        if self._state is SessionState.LISTENING:
            self._prefill_soon(self._history.with_caller(""))

    async def end(self, reason: str = "closed") -> Ended:
        """End the call and free what it holds; always possible, and once more is harmless."""
        if self._state is not SessionState.ENDED:
            if self._turn is not None:
                self.interrupt()
            self._hint = None
            self._move(SessionState.ENDED)
            if self._call is not None:
                await self._call.close()
            for stream in self._uncounted:
                await _ended(stream)
            self._count_usage()
        return Ended(reason, self._turns, self._usage, self._engine.clock() - self._started_s)

    async def _events(self, turn: _Turn) -> AsyncIterator[SessionEvent]:
        try:
            async for event in turn.stream:
                if turn.settled:
                    continue  # what was on its way when the caller interrupted is neither spoken nor kept
                if isinstance(event, SentenceChunk):
                    turn.playback.sent(event.text)
                    yield Chunk(turn.turn_id, event.index, event.text, event.final)
                elif isinstance(event, Thought):
                    yield CallThought(turn.turn_id, event.text)
        except VoiceLLMError as e:
            if isinstance(e, (InvalidRequestError, ContextTooLongError)):
                self._take_back(turn)
            retry_after_s = e.retry_after_s if isinstance(e, AtCapacityError) else None
            yield CallError(e.code, _for_peers(e), retry_after_s, turn_id=turn.turn_id)
        interrupted = turn.settled
        self._settle(turn, turn.playback.text)
        self._count_usage()
        end = turn.stream.finished or Finished(FinishReason.ERROR, Usage(), Timings())
        reason = FinishReason.INTERRUPTED if interrupted else end.reason
        yield TurnEnd(turn.turn_id, reason, end.usage, end.timings)

    def _take_back(self, turn: _Turn) -> None:
        self._history.take_back(turn.question)
        if self._last_turn is turn:
            self._last_turn = None

    def _count_usage(self) -> None:
        """Add what finished turns used, each once, whether or not somebody read them to their end."""
        for stream in self._uncounted:
            if stream.finished is not None:
                self._usage += stream.finished.usage
        self._uncounted = [s for s in self._uncounted if s.finished is None]

    def _settle(self, turn: _Turn, said: str) -> None:
        """Write a reply into the history, once, and get the cache ready for the next turn."""
        if turn.settled:
            return
        turn.settled = True
        self._history.assistant_said(said)
        if self._turn is turn:
            self._turn = None
            self._move(SessionState.LISTENING)
            self._prefill_soon(self._history.with_caller(""))

    def _prefill_soon(self, messages: list[Message]) -> None:
        """Prefill in the background, one at a time; only the latest wish counts."""
        self._hint = messages
        if self._hinting is None or self._hinting.done():
            self._hinting = asyncio.get_running_loop().create_task(self._prefill_hints())

    async def _prefill_hints(self) -> None:
        while self._hint is not None:
            messages, self._hint = self._hint, None
            try:
                await self._open_call().prefill(messages, rag_context=self._rag_context)
            except VoiceLLMError as e:
                logger.debug("a hint was not prefilled: %s", e.code)

    def _open_call(self) -> Call:
        if self._call is None:
            raise WrongStateError("the session has not been started")
        return self._call

    def _require(self, *states: SessionState) -> None:
        if self._state not in states:
            allowed = " or ".join(s.value for s in states)
            raise WrongStateError(f"the call is {self._state.value}; this needs it to be {allowed}")

    def _move(self, state: SessionState) -> None:
        if state not in _MOVES[self._state]:
            raise WrongStateError(f"a call cannot go from {self._state.value} to {state.value}")
        self._state = state


async def _ended(stream: ReplyStream) -> None:
    """Wait for the last event of a reply that was cancelled or has failed."""
    try:
        async for _ in stream:
            pass
    except VoiceLLMError as e:
        logger.debug("the reply that ended with the call had failed: %s", e.code)


def _for_peers(error: VoiceLLMError) -> str:
    """Return what the other side may read: an internal error's detail is for the log alone."""
    if error.code != VoiceLLMError.code:
        return str(error)
    logger.error("a turn failed: %s: %s", type(error).__name__, error)
    return "the engine failed; its log says why"
