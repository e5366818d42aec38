"""What virtual callers talk to: the Target protocol, and the engine in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from ..config import SamplingParams
from ..errors import VoiceLLMError
from ..events import TextDelta, Usage
from ..runtime import Call, Engine
from .script import CallScript

__all__ = ["ChatMessages", "EngineTarget", "Target", "TargetCall", "TargetError"]

ChatMessages = Sequence[Mapping[str, str]]
"""The history as a chat: ``role`` (``system``, ``user``, ``assistant``) and ``content``."""


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

    async def prefill(self, messages: ChatMessages) -> None:
        """Tell what is known of the next prompt; the last message may still grow. May do nothing."""

    def turn(self, messages: ChatMessages, max_tokens: int | None) -> AsyncGenerator[str, None]:
        """Answer the last message: text as it comes. Closing the generator stops the reply."""

    async def close(self) -> None:
        """Hang up."""


class Target(Protocol):
    """Something that answers phone calls."""

    async def open(self, script: CallScript, call_id: str) -> TargetCall:
        """Open a call; the script says which RAG context the call has.

        Raises:
            VoiceLLMError: The call was not taken.
        """


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
        call = await self._engine.open_call(call_id=call_id, tenant=self._tenant)
        return _EngineCall(call, script.rag_context, self._sampling)


class _EngineCall:
    def __init__(self, call: Call, rag_context: str | None, sampling: SamplingParams | None) -> None:
        self._call = call
        self._rag_context = rag_context
        self._sampling = sampling
        self.usage: Usage | None = None

    async def prefill(self, messages: ChatMessages) -> None:
        await self._call.prefill(messages, rag_context=self._rag_context)

    async def turn(self, messages: ChatMessages, max_tokens: int | None) -> AsyncGenerator[str, None]:
        self.usage = None
        reply = self._call.generate(messages, self._sampling, rag_context=self._rag_context, max_tokens=max_tokens)
        try:
            async for event in reply:
                if isinstance(event, TextDelta):
                    yield event.text
        finally:
            reply.cancel()
            self.usage = reply.finished.usage if reply.finished else None

    async def close(self) -> None:
        await self._call.close()
