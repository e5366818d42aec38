"""Prefiller: what is known of a call's next prompt, computed while nobody waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pipecat.processors.aggregators.llm_context import LLMContext

from ..errors import VoiceLLMError
from ..remote.face import CallFace
from .adapter import VoiceLLMInvocationParams
from .conversation import Conversation

__all__ = ["Prefiller", "open_turn"]

logger = logging.getLogger(__name__)


class Prefiller:
    """Keeps at most one prefill under way: the newest, and none once a turn is answered.

    Args:
        conversation: What is known of the call.
        params_of: Makes a prompt of a context.
        ready_call: Returns the call, opened if need be.
        rag_context: Returns the call's retrieved text as it is now.
        create_task: Runs a coroutine in the background.
    """

    def __init__(
        self,
        conversation: Conversation,
        *,
        params_of: Callable[[LLMContext], Awaitable[VoiceLLMInvocationParams]],
        ready_call: Callable[[], Awaitable[CallFace]],
        rag_context: Callable[[], str | None],
        create_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._conversation = conversation
        self._params_of = params_of
        self._ready_call = ready_call
        self._rag_context = rag_context
        self._create_task = create_task
        self._task: asyncio.Task[None] | None = None

    def show(self, user_text: str = "") -> None:
        """Begin with the context as it is now and the caller's words so far, in place of what is under way."""
        self.stop()
        self._task = self._create_task(self._prefill(self._conversation.snapshot(), user_text))

    def stop(self) -> None:
        """Give up what is under way, without waiting: a turn's prompt must not stand in line behind it."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _prefill(self, context: LLMContext, user_text: str) -> None:
        try:
            params = await self._params_of(context)
            call = await self._ready_call()
            await call.prefill(
                open_turn(params, user_text),
                rag_context=self._rag_context(),
                tools=params["tools"],
                # Words that may be the last are prefilled as if they were: up to the header of the reply.
                open_ended=not user_text,
            )
        except VoiceLLMError as e:
            # A hint that cannot be followed changes nothing: the turn itself will say what is wrong.
            logger.debug("no early prefill: %s", e.code)


def open_turn(params: VoiceLLMInvocationParams, user_text: str = "") -> list[dict[str, Any]]:
    """Return the messages with the turn that is being spoken; before anything was said, the caller may not be first."""
    messages = params["messages"]
    if not user_text and [message["role"] for message in messages] == ["system"]:
        return messages
    return [*messages, {"role": "user", "content": " ".join(user_text.split())}]
