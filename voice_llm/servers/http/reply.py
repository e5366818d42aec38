"""A reply in OpenAI's words: one object, or one a piece."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ...events import Finished, FinishReason, GenerateEvent, TextDelta, Thought, ToolCall, Usage

__all__ = ["Completion", "sse", "to_json"]


@dataclass(slots=True)
class Completion:
    """One chat completion, and how far it has come.

    Attributes:
        completion_id: Its name.
        created_s: When it was asked for, in seconds since 1970.
        model: What it says it was made with.
        one_tool_call: Tell of the first tool call only.
        include_usage: End a stream with token counts.
    """

    completion_id: str
    created_s: int
    model: str
    one_tool_call: bool = False
    include_usage: bool = False
    _calls: int = field(default=0, init=False)
    _begun: bool = field(default=False, init=False)

    def pieces(self, event: GenerateEvent) -> list[dict[str, Any]]:
        """Return what a stream tells of an event: nothing of sentences, which repeat the text."""
        if isinstance(event, Finished):
            pieces = [*self._first(), self._piece({}, finish_reason=_finish_reason(event.reason))]
            if self.include_usage:
                pieces.append(self._head("chat.completion.chunk") | {"choices": [], "usage": _usage(event.usage)})
            return pieces
        if isinstance(event, TextDelta):
            return [self._piece(self._role() | {"content": event.text})]
        if isinstance(event, Thought):
            return [self._piece(self._role() | {"reasoning_content": event.text})]
        if isinstance(event, ToolCall) and self._takes_call():
            return [self._piece(self._role() | {"tool_calls": [{"index": self._calls - 1} | _call(event)]})]
        return []

    def whole(self, events: Iterable[GenerateEvent]) -> dict[str, Any]:
        """Return a finished reply."""
        told = list(events)
        finished = next(event for event in told if isinstance(event, Finished))
        text, thought = _text(told, TextDelta), _text(told, Thought)
        calls = [_call(event) for event in told if isinstance(event, ToolCall) and self._takes_call()]
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
        if thought:
            message["reasoning_content"] = thought
        if calls:
            message["tool_calls"] = calls
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": _finish_reason(finished.reason),
        }
        return self._head("chat.completion") | {"choices": [choice], "usage": _usage(finished.usage)}

    def _takes_call(self) -> bool:
        if self.one_tool_call and self._calls:
            return False
        self._calls += 1
        return True

    def _first(self) -> list[dict[str, Any]]:
        return [] if self._begun else [self._piece(self._role() | {"content": ""})]

    def _role(self) -> dict[str, Any]:
        begun, self._begun = self._begun, True
        return {} if begun else {"role": "assistant"}

    def _piece(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        piece = self._head("chat.completion.chunk") | {"choices": [choice]}
        return piece | {"usage": None} if self.include_usage else piece

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.completion_id, "object": kind, "created": self.created_s, "model": self.model}


def sse(value: object) -> bytes:
    """Write one server-sent event."""
    return f"data: {to_json(value)}\n\n".encode()


def to_json(value: object) -> str:
    """Write a value on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _finish_reason(reason: FinishReason) -> str:
    """Return OpenAI's word; a reply that did not come to its end is an error, and has none."""
    if reason not in (FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS):
        raise ValueError(f"a reply that ended with {reason.value} is not a completion")
    return reason.value


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": to_json(call.arguments)}
    return {"id": call.tool_call_id, "type": "function", "function": function}


def _text(events: Iterable[GenerateEvent], kind: type[TextDelta] | type[Thought]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))
