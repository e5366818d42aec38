"""VoiceLLMAdapter: from Pipecat's context to the messages and tools of a call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypedDict, cast

from pipecat.adapters.llm.base_llm_adapter import BaseLLMAdapter
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.processors.aggregators.llm_context import LLMContext, LLMSpecificMessage
from pipecat.utils.types import is_given

__all__ = ["VoiceLLMAdapter", "VoiceLLMInvocationParams"]

_SPACES: Final = re.compile(r"[^\S\n]+")


class VoiceLLMInvocationParams(TypedDict):
    """What ``Call.generate`` takes from a context."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    tool_choice: Any


class VoiceLLMAdapter(BaseLLMAdapter[VoiceLLMInvocationParams]):
    """Writes contexts as local chat templates take them.

    Developer messages, and system messages that are not the first, become the caller's; white space in the caller's
    text is made regular, so that a partial transcript and the committed one share their tokens; an assistant's text
    and the tool calls after it become one message, as they were sampled.
    """

    @property
    def id_for_llm_specific_messages(self) -> str:
        """Name under which messages for this service alone are kept in a context."""
        return "voice_llm"

    async def get_llm_invocation_params(
        self, context: LLMContext, *, system_instruction: str | None = None, **kwargs: Any
    ) -> VoiceLLMInvocationParams:
        """Return messages, tools and tool choice of a context.

        Args:
            context: The conversation.
            system_instruction: The system message; one in the context is used where there is none.
            **kwargs: None are known.
        """
        if kwargs:
            raise TypeError(f"unknown arguments: {', '.join(kwargs)}")
        messages = [_unwrap(message) for message in self.get_messages(context)]
        from_context = self._extract_initial_system(messages, system_instruction=system_instruction)
        system = self._resolve_system_instruction(from_context, system_instruction, discard_context_system=True)
        head = [{"role": "system", "content": system}] if system else []
        tools = self.from_standard_tools(context.tools)
        return {
            "messages": [*head, *_join_calls(_normalise(message) for message in messages)],
            "tools": list(tools) if tools is not None and is_given(tools) else [],
            "tool_choice": context.tool_choice if is_given(context.tool_choice) else "auto",
        }

    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[Any]:
        """Return the tools as OpenAI writes them, which ``Call.generate`` takes."""
        return [{"type": "function", "function": tool.to_default_dict()} for tool in tools_schema.standard_tools]

    def get_messages_for_logging(self, context: LLMContext) -> list[dict[str, Any]]:
        """Return the messages with large values cut short."""
        return [_unwrap(message) for message in self.get_messages(context, truncate_large_values=True)]


def _unwrap(message: Any) -> dict[str, Any]:
    return dict(cast(Mapping[str, Any], message.message if isinstance(message, LLMSpecificMessage) else message))


def _normalise(message: dict[str, Any]) -> dict[str, Any]:
    if message.get("role") in ("developer", "system"):
        message["role"] = "user"
    content = message.get("content")
    if message.get("role") == "user" and isinstance(content, str):
        lines = (_SPACES.sub(" ", line).strip() for line in content.strip().splitlines())
        message["content"] = "\n".join(lines)
    return message


def _join_calls(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    joined: list[dict[str, Any]] = []
    for message in messages:
        before = joined[-1] if joined else {}
        is_call = message.get("role") == "assistant" and message.get("tool_calls") and not message.get("content")
        if is_call and before.get("role") == "assistant" and not before.get("tool_calls"):
            joined[-1] = {**message, "content": before.get("content")}
        else:
            joined.append(message)
    return joined
