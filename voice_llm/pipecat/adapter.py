"""VoiceLLMAdapter: from Pipecat's context to the messages and tools of a call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypedDict, cast

from pipecat.adapters.llm.base_llm_adapter import BaseLLMAdapter
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.processors.aggregators.llm_context import LLMContext, LLMSpecificMessage
from pipecat.utils.types import is_given

__all__ = ["VoiceLLMAdapter", "VoiceLLMInvocationParams"]

_SPACES: Final = re.compile(r"[^\S\n]+")
_ROLES: Final = frozenset({"user", "assistant", "tool"})


class VoiceLLMInvocationParams(TypedDict):
    """What ``Call.generate`` takes from a context, and what of the context had to be left out, in words."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    tool_choice: Any
    problems: list[str]


class VoiceLLMAdapter(BaseLLMAdapter[VoiceLLMInvocationParams]):
    """Writes contexts as local chat templates take them.

    Developer messages, and system messages that are not the first, become the caller's; white space in the caller's
    text is made regular, so that a partial transcript and the committed one share their tokens; an assistant's text
    and the tool calls after it become one message, as they were sampled.

    What no local model can take (pictures, unknown roles, tool calls whose arguments are no JSON) is left out and told
    of, since it stays in the context: refused, it would silence the rest of the call. A tool choice that forces a call
    no longer does once the tool's result is there, or the reply would be another call, without end.
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
        problems: list[str] = []
        usable = [usable for message in messages if (usable := _usable(message, problems)) is not None]
        head = [{"role": "system", "content": system}] if system else []
        tools = self.from_standard_tools(context.tools)
        forced = is_given(context.tool_choice) and not (usable and usable[-1]["role"] == "tool")
        return {
            "messages": [*head, *_join_calls(usable)],
            "tools": list(tools) if tools is not None and is_given(tools) else [],
            "tool_choice": context.tool_choice if forced or context.tool_choice == "none" else "auto",
            "problems": problems,
        }

    def to_provider_tools_format(self, tools_schema: ToolsSchema) -> list[Any]:
        """Return the tools as OpenAI writes them, which ``Call.generate`` takes."""
        return [{"type": "function", "function": tool.to_default_dict()} for tool in tools_schema.standard_tools]

    def get_messages_for_logging(self, context: LLMContext) -> list[dict[str, Any]]:
        """Return the messages with large values cut short."""
        return [_unwrap(message) for message in self.get_messages(context, truncate_large_values=True)]


def _unwrap(message: Any) -> dict[str, Any]:
    return dict(cast(Mapping[str, Any], message.message if isinstance(message, LLMSpecificMessage) else message))


def _usable(message: dict[str, Any], problems: list[str]) -> dict[str, Any] | None:
    """Return the message as a local template takes it; None where nothing of it can be used."""
    role = message.get("role")
    if role in ("developer", "system"):
        role = "user"
    if role not in _ROLES:
        problems.append(f"a message of the unknown role {role!r} is left out")
        return None
    usable: dict[str, Any] = {"role": role}
    if (content := message.get("content")) is not None:
        usable["content"] = _text_of(content, problems)
        if role == "user":
            usable["content"] = _regular(usable["content"])
    if role == "assistant" and message.get("tool_calls"):
        usable["tool_calls"] = [call for call in message["tool_calls"] if _is_call(call, problems)]
    if role == "tool":
        usable["tool_call_id"] = message.get("tool_call_id")
    return usable if usable.get("content") is not None or usable.get("tool_calls") else None


def _text_of(content: Any, problems: list[str]) -> Any:
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind == "text":
            texts.append(str(part["text"]))
        else:
            problems.append(f"a message part of type {kind!r} is left out: the model reads text only")
    return " ".join(texts)


def _is_call(call: Mapping[str, Any], problems: list[str]) -> bool:
    function = call.get("function") or {}
    arguments = function.get("arguments") or "{}"
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        parsed = None
    if not isinstance(parsed, Mapping):
        problems.append(f"a call of the tool {function.get('name')!r} is left out: its arguments are no JSON object")
    return isinstance(parsed, Mapping)


def _regular(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    return "\n".join(_SPACES.sub(" ", line).strip() for line in text.strip().splitlines())


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
