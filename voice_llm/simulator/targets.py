"""What virtual callers talk to: the Target protocol, and the engine in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from ..config import SamplingParams
from ..errors import VoiceLLMError
from ..events import TextDelta, Timings, ToolCall, Usage
from ..runtime import Call, Engine
from .results import CallResult, TurnResult
from .script import CallScript

__all__ = ["CallHolder", "ChatMessages", "EngineCall", "EngineTarget", "Target", "TargetCall", "TargetError"]

ChatMessages = Sequence[Mapping[str, Any]]
"""The history as a chat: ``role``, ``content``, and what else ``voice_llm.prompt`` takes."""


class TargetError(VoiceLLMError):
    """A target did not answer as it should.

    Attributes:
        status: The HTTP status, where there was one.
    """

    code = "target"

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TargetCall(Protocol):
    """One open call at a target. Whatever goes wrong is raised as ``VoiceLLMError``."""

    @property
    def usage(self) -> Usage | None:
        """Token counts of the last turn, if the target tells."""

    @property
    def timings(self) -> Timings | None:
        """Times of the last turn by the target's clock, if it tells."""

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """What the last turn asked of tools."""

    @property
    def runs_tools(self) -> bool:
        """Whether the target has brought their results already; else the turn is asked again with them."""

    async def prefill(self, messages: ChatMessages) -> None:
        """Tell what is known of the next prompt; the last message may still grow. May do nothing."""

    def turn(self, messages: ChatMessages, max_tokens: int | None) -> AsyncGenerator[str, None]:
        """Answer the last message: text as it comes. Closing the generator stops the reply."""

    async def interrupt(self, spoken: str) -> None:
        """Tell that the caller speaks into the reply, of which that much was heard; the generator is closed next.

        A target whose caller sends the whole history has nothing to do.
        """

    async def close(self) -> None:
        """Hang up."""


class Target(Protocol):
    """Something that answers phone calls."""

    async def open(self, script: CallScript, call_id: str) -> TargetCall:
        """Open a call; the script says which RAG context the call has.

        Raises:
            VoiceLLMError: The call was not taken.
        """


@runtime_checkable
class CallHolder(Protocol):
    """A target that holds whole calls by itself, since more than text goes to and fro."""

    async def hold(
        self,
        script: CallScript,
        call_id: str,
        *,
        clock: Callable[[], float],
        on_turn: Callable[[TurnResult], bool],
    ) -> CallResult:
        """Hold a call from dialling to hanging up; what goes wrong is in the result."""


class EngineTarget:
    """The engine in this process.

    Args:
        engine: Stays the owner's to close.
        sampling: How replies are drawn; the profile's by default.
        tenant: Whose calls they are.
    """

    def __init__(self, engine: Engine, *, sampling: SamplingParams | None = None, tenant: str = "default") -> None:
        self._engine = engine
        self._sampling = sampling
        self._tenant = tenant

    async def open(self, script: CallScript, call_id: str) -> TargetCall:
        """See ``Target``."""
        return EngineCall(await self._open(script, call_id), script, self._sampling)

    async def _open(self, script: CallScript, call_id: str) -> Call:
        return await self._engine.open_call(call_id=call_id, tenant=self._tenant, language=script.language)


class EngineCall:
    """One call at an ``EngineTarget``.

    Args:
        call: The engine's.
        script: Who calls.
        sampling: How replies are drawn.
    """

    runs_tools = False

    def __init__(self, call: Call, script: CallScript, sampling: SamplingParams | None) -> None:
        self._call = call
        self._script = script
        self._sampling = sampling
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.tool_calls: tuple[ToolCall, ...] = ()

    async def prefill(self, messages: ChatMessages) -> None:
        """See ``TargetCall``."""
        await self._call.prefill(messages, rag_context=self._script.rag_context, tools=self._script.tools)

    async def turn(self, messages: ChatMessages, max_tokens: int | None) -> AsyncGenerator[str, None]:
        """See ``TargetCall``."""
        self.usage, self.timings, self.tool_calls = None, None, ()
        reply = self._call.generate(
            messages,
            self._sampling,
            rag_context=self._script.rag_context,
            tools=self._script.tools,
            max_tokens=max_tokens,
        )
        try:
            async for event in reply:
                if isinstance(event, TextDelta):
                    yield event.text
                elif isinstance(event, ToolCall):
                    self.tool_calls += (event,)
        finally:
            reply.cancel()
            if reply.finished is not None:
                self.usage, self.timings = reply.finished.usage, reply.finished.timings

    async def interrupt(self, spoken: str) -> None:
        """See ``TargetCall``."""

    async def close(self) -> None:
        """See ``TargetCall``."""
        await self._call.close()
