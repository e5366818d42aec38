"""CallSession: one phone conversation. A ``Call`` with a history, turns and barge-in; what transports talk to."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from ..config import SamplingParams
from ..errors import AtCapacityError, ContextTooLongError, InvalidRequestError, VoiceLLMError, WrongStateError
from ..events import FinishReason, Usage
from ..prompt import Message, Tool, ToolChoice, parse_tool_choice, parse_tools
from ..runtime import Call, Engine
from ..runtime.call import Tools
from .events import CallError, Ended, Ready, SessionEvent
from .hints import Hints
from .history import History, Playback
from .state import SessionState
from .turn import RunningTurn, TurnRequest
from .usage import UsageCount

__all__ = ["CallSession", "SessionState"]

logger = logging.getLogger(__name__)


_LIVE: Final = (SessionState.LISTENING, SessionState.TALKING)


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
        tools: What replies may ask for; as ``Call.generate`` takes them.
        tool_choice: Which of them they may or must ask for, as there.

    Raises:
        InvalidRequestError: A tool or the choice cannot be used.

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
        tools: Tools = (),
        tool_choice: ToolChoice = "auto",
    ) -> None:
        self.call_id = call_id or uuid4().hex
        self._engine = engine
        self._tenant = tenant
        self._rag_context = rag_context
        self._params = params or engine.profile.sampling
        self._tools: tuple[Tool, ...] = parse_tools(tools)
        parse_tool_choice(tool_choice, self._tools)
        self._tool_choice = tool_choice
        prompts = (engine.profile.system_prompt.strip(), system_prompt.strip())
        self._history = History("\n\n".join(p for p in prompts if p), history)
        self._state = SessionState.NEW
        self._call: Call | None = None
        self._turn: RunningTurn | None = None
        self._last_turn: RunningTurn | None = None
        self._turn_ids: set[str] = set()
        self._turns = 0
        self._usage = UsageCount()
        self._used = Usage()
        self._started_s = engine.clock()
        self._hints = Hints(self._prefill)

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
        self._state.require(SessionState.NEW)
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
        done = await call.prefill(messages, rag_context=self._rag_context, tools=self._tools, arrival_s=arrival_s)
        return Ready(self.call_id, done.usage, (self._engine.clock() - arrival_s) * 1e3)

    def turn(
        self,
        text: str,
        *,
        turn_id: str | None = None,
        rag_context: str | None = None,
        params: SamplingParams | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> AsyncGenerator[SessionEvent, None]:
        """Answer the caller, from the first step of the iteration on; else as ``start_turn``."""
        return self._turn_when_read(
            text, turn_id=turn_id, rag_context=rag_context, params=params, tool_choice=tool_choice
        )

    async def _turn_when_read(self, text: str, **options: Any) -> AsyncGenerator[SessionEvent, None]:
        events = self.start_turn(text, **options)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    def start_turn(
        self,
        text: str,
        *,
        turn_id: str | None = None,
        rag_context: str | None = None,
        params: SamplingParams | None = None,
        tool_choice: ToolChoice | None = None,
        speculative: bool = False,
    ) -> AsyncGenerator[SessionEvent, None]:
        """Begin to answer the caller at once. A turn that still runs is superseded: it ends ``interrupted``.

        Args:
            text: What the caller said.
            turn_id: The transport's name for the turn; none twice in a call.
            rag_context: Text retrieved for this question; it stays in the history with it.
            params: How this reply is drawn.
            tool_choice: Which tools this reply may or must ask for.
            speculative: Compute the reply and keep it back until ``confirm``. A speculation that is withdrawn, or
                superseded before it was confirmed, has no event and leaves nothing in the history.

        Returns:
            The turn's events, to be read to their end or closed: ``Chunk`` and ``CallThought`` as they come,
            ``CallToolCall`` where the reply asks for tools (it goes on when the results of all are in), a ``CallError``
            where the turn fails, and ``TurnEnd`` last. A turn that is refused, for its length or for what is in it,
            leaves nothing in the history. Timings count from now, for a speculation too: what it gained shows as a
            first token that was there before the turn was confirmed.

        Raises:
            WrongStateError: The session is not started or has ended.
            InvalidRequestError: The id was used before, or there is no such tool; a running turn goes on.
            EngineDeadError: The engine has died.
        """
        self._state.require(*_LIVE)
        choice = self._tool_choice if tool_choice is None else tool_choice
        parse_tool_choice(choice, self._tools)
        request = TurnRequest(
            turn_id=self._new_turn_id(turn_id),
            question=Message("user", text, rag_context),
            params=params or self._params,
            tool_choice=choice,
            rag_context=self._rag_context,
            arrival_s=self._engine.clock(),
        )
        if self._turn is not None:
            self._supersede(self._turn)
        self._hints.drop()
        playback = Playback(self._engine.profile.speaking_rate_chars_per_s, self._engine.clock)
        turn = RunningTurn(request, playback, held=speculative)
        self._generate(turn, [*self._history.messages, turn.question])
        self._turn_ids.add(turn.turn_id)
        self._turn = turn
        self._move(SessionState.TALKING)
        if not speculative:
            self._speak(turn)
        return self._told(turn)

    def confirm(self, turn_id: str) -> None:
        """Let a speculative turn speak: it was the caller's last word.

        Raises:
            WrongStateError: No speculative turn of that id waits.
        """
        self._speak(self._speculation(turn_id))

    def withdraw(self, turn_id: str) -> None:
        """Throw a speculative turn away: the caller went on speaking.

        Raises:
            WrongStateError: No speculative turn of that id waits.
        """
        self._discard(self._speculation(turn_id))

    def tool_result(self, tool_call_id: str, result: Any) -> None:
        """Take what a tool returned, any JSON value; the turn goes on when the results of all its calls are in.

        Raises:
            WrongStateError: No call of that id is open.
            InvalidRequestError: The result cannot be written as JSON.
        """
        self._state.require(*_LIVE)
        if self._turn is None:
            raise WrongStateError("no tool call waits for a result")
        self._turn.tool_result(tool_call_id, result)

    def partial(self, text: str) -> None:
        """Take note of what the caller has said so far: it is prefilled in idle room, and never answered.

        Raises:
            WrongStateError: The session is not started or has ended.
        """
        self._state.require(*_LIVE)
        # Words that may be the last are prefilled as if they were: up to the header of the reply.
        self._prefill_soon(text, open_ended=not text.strip())

    def played(self, turn_id: str, index: int, played_ms: int) -> None:
        """Take note of what the caller has heard: chunk ``index`` for ``played_ms``, and all before it.

        Raises:
            WrongStateError: The session is not started or has ended.
        """
        self._state.require(*_LIVE)
        if self._last_turn is not None and self._last_turn.turn_id == turn_id:
            self._last_turn.playback.played(index, played_ms)

    def interrupt(self, spoken_text: str | None = None) -> None:
        """Stop the running reply; only what was heard stays in the history.

        Without a running turn, or while that is an unconfirmed speculation, it only corrects what was heard of the last
        one that could be heard.

        Args:
            spoken_text: What was heard. Where it is None the playback reports count, and without any the speaking rate.

        Raises:
            WrongStateError: The session is not started or has ended.
        """
        self._state.require(*_LIVE)
        turn = self._last_turn
        if turn is None:
            return
        turn.playback.stop()
        heard = turn.playback.heard() if spoken_text is None else spoken_text
        self._note_barge_in(turn, heard)
        if turn is self._turn:
            self._stop(turn, heard)
        else:
            self._history.answer(turn.question, turn.reply(heard))
            self._prefill_soon()

    def set_context(self, rag_context: str | None) -> None:
        """Replace the call's retrieved text, from the next turn on.

        Raises:
            WrongStateError: The session is not started or has ended.
        """
        self._state.require(*_LIVE)
        self._rag_context = rag_context
        self._prefill_soon()

    async def end(self, reason: str = "closed") -> Ended:
        """End the call and free what it holds; always possible, and once more is harmless."""
        if self._state is not SessionState.ENDED:
            if self._turn is not None and self._turn.held:
                self._discard(self._turn)
            elif self._turn is not None:
                self._turn.playback.stop()
                self._stop(self._turn, self._turn.playback.heard())
            self._move(SessionState.ENDED)
            self._hints.drop()
            if self._call is not None:
                await self._call.close()
            self._used = await self._usage.total()
        return Ended(reason, self._turns, self._used, self._engine.clock() - self._started_s)

    async def _told(self, turn: RunningTurn) -> AsyncGenerator[SessionEvent, None]:
        try:
            await turn.until_released()
            if not turn.discarded:
                async for event in self._events(turn):
                    yield event
        finally:
            turn.stream.cancel()
            if turn.held:
                self._discard(turn)
            self._settle(turn, turn.playback.text)

    async def _events(self, turn: RunningTurn) -> AsyncGenerator[SessionEvent, None]:
        failed = False
        try:
            while True:
                async for event in turn.stream:
                    # What was on its way when the caller interrupted is neither spoken nor kept.
                    told = None if turn.settled else turn.tell(event)
                    if told is not None:
                        yield told
                await turn.until_answered()
                if turn.settled or not turn.asks_for_tools:
                    break
                self._generate(turn, [*self._history.messages, *turn.reply(turn.playback.text)])
        except VoiceLLMError as e:
            failed = True
            if isinstance(e, (InvalidRequestError, ContextTooLongError)):
                self._take_back(turn)
            retry_after_s = e.retry_after_s if isinstance(e, AtCapacityError) else None
            yield CallError(e.code, _for_peers(e), retry_after_s, turn_id=turn.turn_id)
        reason = FinishReason.INTERRUPTED if turn.settled else FinishReason.ERROR if failed else None
        self._settle(turn, turn.playback.text)
        yield turn.end(reason)

    def _generate(self, turn: RunningTurn, messages: list[Message]) -> None:
        """Begin a round of a turn."""
        now_s = self._engine.clock()
        stream = self._open_call().generate(
            messages,
            turn.request.params,
            rag_context=turn.request.rag_context,
            tools=self._tools,
            tool_choice=turn.tool_choice,
            arrival_s=now_s,
        )
        turn.go_on(stream, now_s)
        self._usage.add(stream)

    def _new_turn_id(self, wanted: str | None) -> str:
        if wanted is None:
            number = len(self._turn_ids) + 1
            while f"t{number}" in self._turn_ids:
                number += 1
            return f"t{number}"
        if wanted in self._turn_ids:
            raise InvalidRequestError("a turn of that id was there before", param="turn_id")
        return wanted

    def _speculation(self, turn_id: str) -> RunningTurn:
        self._state.require(*_LIVE)
        if self._turn is None or not self._turn.held or self._turn.turn_id != turn_id:
            raise WrongStateError("no speculative turn of that id waits to be confirmed")
        return self._turn

    def _speak(self, turn: RunningTurn) -> None:
        """Make a turn the one that the caller hears."""
        self._history.add(turn.question)
        self._last_turn = turn
        self._turns += 1
        turn.release()

    def _supersede(self, turn: RunningTurn) -> None:
        if turn.held:
            self._discard(turn)
        else:
            self.interrupt()

    def _discard(self, turn: RunningTurn) -> None:
        turn.discarded = True
        turn.stream.cancel()
        self._engine.observer.speculation_discarded()
        self._close(turn)
        turn.release()

    def _stop(self, turn: RunningTurn, heard: str) -> None:
        turn.stream.cancel(FinishReason.INTERRUPTED)
        self._settle(turn, heard)

    def _note_barge_in(self, turn: RunningTurn, heard: str) -> None:
        """Count a reply that was spoken over, once: it was still being made, or not all of it had been heard."""
        cut = turn is self._turn or heard.strip() != turn.playback.text.strip()
        if cut and not turn.barged_in:
            turn.barged_in = True
            self._engine.observer.barge_in()

    def _take_back(self, turn: RunningTurn) -> None:
        if not turn.is_first_round:
            turn.forget_tools()
            return
        self._history.take_back(turn.question)
        if self._last_turn is turn:
            self._last_turn = None

    def _settle(self, turn: RunningTurn, said: str) -> None:
        """Write a reply into the history, once, and get the cache ready for the next turn."""
        if turn.settled or turn.discarded:
            return
        self._history.answer(turn.question, turn.reply(said))
        self._close(turn)

    def _close(self, turn: RunningTurn) -> None:
        turn.settle()
        if self._turn is turn:
            self._turn = None
            self._move(SessionState.LISTENING)
            self._prefill_soon()

    def _prefill_soon(self, text: str = "", *, open_ended: bool = True) -> None:
        """Prefill in the background, where no turn runs: a prefill would have to wait for it."""
        if self._state is SessionState.LISTENING:
            self._hints.show(self._history.with_caller(text), open_ended=open_ended)

    async def _prefill(self, messages: list[Message], open_ended: bool) -> None:
        await self._open_call().prefill(
            messages, rag_context=self._rag_context, tools=self._tools, open_ended=open_ended
        )

    def _open_call(self) -> Call:
        if self._call is None:
            raise WrongStateError("the session has not been started")
        return self._call

    def _move(self, state: SessionState) -> None:
        self._state = self._state.moved(state)


def _for_peers(error: VoiceLLMError) -> str:
    """Return what the other side may read: an internal error's detail is for the log alone."""
    if error.code != VoiceLLMError.code:
        return str(error)
    logger.error("a turn failed: %s", type(error).__name__, exc_info=error)
    return "the engine failed; its log says why"
