"""Conversation: what a service knows of the context between its turns."""

from __future__ import annotations

from typing import Any, cast

from pipecat.frames.frames import LLMContextAssistantTurnFrame, LLMContextFrame, LLMContextUserTurnFrame
from pipecat.processors.aggregators.llm_context import LLMContext

__all__ = ["Conversation"]


class Conversation:
    """Follows the call's context, so that the next prompt can be computed before it is asked for.

    The live context comes by with the first turn that is not speculative. Until then, and in a call whose turns are all
    begun early, the conversation is put together from copies and from what aggregators announce.
    """

    def __init__(self) -> None:
        self._live: LLMContext | None = None
        self._known = LLMContext()

    def follow(self, frame: LLMContextFrame) -> None:
        """Take note of the context of a turn to be answered."""
        if not frame.speculation:
            self._live = frame.context
        elif self._live is None:
            # A copy, and its last message is the guess that is answered.
            self._known = _copy(frame.context, frame.context.messages[:-1])

    def add(self, frame: LLMContextUserTurnFrame | LLMContextAssistantTurnFrame) -> None:
        """Take note of what was written to the context."""
        if self._live is None and frame.text:
            role = "user" if isinstance(frame, LLMContextUserTurnFrame) else "assistant"
            self._known.add_message(cast(Any, {"role": role, "content": frame.text}))

    def snapshot(self) -> LLMContext:
        """Return a copy of the context as it is now."""
        context = self._live or self._known
        return _copy(context, context.messages)


def _copy(context: LLMContext, messages: list[Any]) -> LLMContext:
    return LLMContext(messages=list(messages), tools=context.tools, tool_choice=context.tool_choice)
