"""CallSession: one phone conversation. A ``Call`` with a history, turns and barge-in; what transports talk to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from ..config import SamplingParams
from ..config.language import check_language
from ..errors import ContextTooLongError, InvalidRequestError, VoiceLLMError, WrongStateError
from ..events import FinishReason, Usage
from ..prompt import Message, Tool, ToolChoice, parse_tool_choice, parse_tools
from ..runtime import Call, Engine
from ..runtime.call import Tools
from .dialogue import Dialogue
from .events import Ended, Ready, SessionEvent
from .hints import Hints
from .history import History, Playback
from .state import SessionState
from .turn import RunningTurn, TurnRequest
from .usage import UsageCount

__all__ = ["CallSession", "SessionState"]

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
        language: Code of the language that is spoken; the profile's by default. As ``Engine.open_call`` takes it.

    Raises:
        InvalidRequestError: A tool or the choice cannot be used, or the language is no code of BCP 47.

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
        language: str | None = None,
    ) -> None:
        self.call_id = call_id or uuid4().hex
        self._engine = engine
        self._tenant = tenant
        self._rag_context = rag_context
        self._params = params or engine.profile.sampling
        self._tools: tuple[Tool, ...] = parse_tools(tools)
        parse_tool_choice(tool_choice, self._tools)
        self._tool_choice = tool_choice
        self._language = engine.profile.language if language is None else check_language(language)
        prompts = (engine.profile.system_prompt.strip(), system_prompt.strip())
        room_tokens = engine.profile.engine.context_per_call
        self._dialogue = Dialogue(History("\n\n".join(p for p in prompts if p), history, room_tokens=room_tokens))
        self._state = SessionState.NEW
        self._call: Call | None = None
        self._turn: RunningTurn | None = None
        self._usage = UsageCount()
        self._used = Usage()
        self._started_s = engine.clock()
        self._hints = Hints(self._prefill)

    def __repr__(self) -> str:
        return f"<CallSession {self.call_id} [{self._state.value} | turns: {self._dialogue.turns}]>"

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
        return self._dialogue.history.messages

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
        call = await self._engine.open_call(call_id=self.call_id, tenant=self._tenant, language=self._language)
        if self._state is not SessionState.NEW:
            await call.close()
            raise WrongStateError("the call has ended while it was being opened")
        self._call = call
        self._move(SessionState.LISTENING)
        if not prefill:
            return Ready(self.call_id, Usage(), 0.0)
        messages = self._dialogue.history.with_caller("")
        done = await call.prefill(messages, rag_context=self._rag_context, tools=self._tools, arrival_s=arrival_s)
        return Ready(self.call_id, done.usage, (self._engine.clock() - arrival_s) * 1e3)

    async def turn(
        self,
        text: str,
        *,
        turn_id: str | None = None,
        rag_context: str | None = None,
        params: SamplingParams | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> AsyncGenerator[SessionEvent, None]:
        """Answer the caller, from the first step of the iteration on; else as ``start_turn``."""
        turn = self.start_turn(text, turn_id=turn_id, rag_context=rag_context, params=params, tool_choice=tool_choice)
        async with aclosing(turn) as events:
            async for event in events:
                yield event

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
            turn_id=self._dialogue.new_id(turn_id),
            question=Message("user", text, rag_context),
            params=params or self._params,
            tool_choice=choice,
            rag_context=self._rag_context,
            arrival_s=self._engine.clock(),
        )
        if self._turn is not None and self._turn.held:
            self._discard(self._turn)
        elif self._turn is not None:
            self.interrupt()
        self._hints.drop()
        playback = Playback(self._engine.profile.speaking_rate_of(self._language), self._engine.clock)
        turn = RunningTurn(request, playback, held=speculative)
        self._generate(turn)
        self._dialogue.begin(turn)
        self._turn = turn
        self._move(SessionState.TALKING)
        if not speculative:
            self._dialogue.speak(turn)
        return self._told(turn)

    def confirm(self, turn_id: str) -> None:
        """Let a speculative turn speak: it was the caller's last word.

        Raises:
            WrongStateError: No speculative turn of that id waits.
        """
        self._dialogue.speak(self._speculation(turn_id))

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
            WrongStateError: The session is not started or has ended, or there was no such turn.
        """
        self._state.require(*_LIVE)
        if not self._dialogue.knows(turn_id):
            raise WrongStateError("there was no turn of that id")
        turn = self._dialogue.last_turn
        if turn is not None and turn.turn_id == turn_id:
            turn.played(index, played_ms)

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
        turn = self._dialogue.last_turn
        if turn is None:
            return
        turn.playback.stop()
        heard = turn.playback.heard() if spoken_text is None else spoken_text
        if turn.barge_in(heard, running=turn is self._turn):
            self._engine.observer.barge_in()
        if turn is self._turn:
            self._stop(turn, heard)
        else:
            self._dialogue.answer(turn, heard)
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
        return Ended(reason, self._dialogue.turns, self._used, self._engine.clock() - self._started_s)

    async def _told(self, turn: RunningTurn) -> AsyncGenerator[SessionEvent, None]:
        try:
            await turn.until_released()
            if turn.discarded:
                await self._usage.ended(turn.stream)  # so that whoever reads can count those still on their way
            else:
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
            async for event in turn.told(self._generate):
                yield event
        except VoiceLLMError as e:
            failed = True
            if isinstance(e, (InvalidRequestError, ContextTooLongError)):
                self._dialogue.take_back(turn)
            self._usage.failed(turn.stream)
            yield turn.failure(e)
        reason = FinishReason.INTERRUPTED if turn.settled else FinishReason.ERROR if failed else None
        self._settle(turn, turn.playback.text)
        yield turn.end(reason)

    def _generate(self, turn: RunningTurn) -> None:
        """Begin the next round of a turn; its question is in the history from when it may speak."""
        now_s = self._engine.clock()
        stream = self._open_call().generate(
            [*self._dialogue.history.messages, *turn.next_messages],
            turn.request.params,
            rag_context=turn.request.rag_context,
            tools=self._tools,
            tool_choice=turn.tool_choice,
            arrival_s=now_s,
        )
        turn.go_on(stream, now_s)
        self._usage.add(stream)

    def _speculation(self, turn_id: str) -> RunningTurn:
        self._state.require(*_LIVE)
        if self._turn is None or not self._turn.held or self._turn.turn_id != turn_id:
            raise WrongStateError("no speculative turn of that id waits to be confirmed")
        return self._turn

    def _discard(self, turn: RunningTurn) -> None:
        turn.discarded = True
        turn.stream.cancel()
        self._engine.observer.speculation_discarded()
        self._close(turn)
        turn.release()

    def _stop(self, turn: RunningTurn, heard: str) -> None:
        turn.stream.cancel(FinishReason.INTERRUPTED)
        self._settle(turn, heard)

    def _settle(self, turn: RunningTurn, said: str) -> None:
        """Write a reply into the history, once, and get the cache ready for the next turn."""
        if turn.settled or turn.discarded:
            return
        self._dialogue.answer(turn, said)
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
            self._hints.show(self._dialogue.history.with_caller(text), open_ended=open_ended)

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
