"""What a call's stream carries, between what a call takes and gives and protobuf with JSON in it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from .._proto import call_pb2
from .._proto import engine_pb2 as pb
from ..config import SamplingParams
from ..engine import Failed
from ..errors import EngineError, InvalidRequestError
from ..events import (
    Finished,
    FinishReason,
    GenerateEvent,
    Prefilled,
    SentenceChunk,
    TextDelta,
    Thought,
    Timings,
    ToolCall,
    Usage,
)
from ..prompt import Message, parse_messages, parse_tools
from ..runtime.call import Messages, Tools
from .errors import error_of_request

__all__ = ["event_of", "params_text", "prompt_of", "tool_choice_text"]


def prompt_of(messages: Messages, rag_context: str | None, tools: Tools) -> pb.Prompt:
    """Write a prompt.

    Raises:
        InvalidRequestError: Messages or tools cannot be used; as the engine itself would say it.
    """
    made = [_message(message) for message in parse_messages(messages)]
    parsed = [dataclasses.asdict(tool) for tool in parse_tools(tools)]
    try:
        return pb.Prompt(
            messages=_json(made, "messages"), rag_context=rag_context, tools=_json(parsed, "tools") if parsed else ""
        )
    except (TypeError, UnicodeEncodeError):
        raise InvalidRequestError("rag_context cannot be written as UTF-8 text", param="rag_context") from None


def params_text(params: SamplingParams) -> str:
    """Write sampling parameters; what is None stays out.

    Raises:
        InvalidRequestError: A JSON schema cannot be written as JSON.
    """
    fields = {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}
    return _json({name: value for name, value in fields.items() if value is not None}, "json_schema")


def tool_choice_text(choice: Any) -> str:
    """Write a tool choice.

    Raises:
        InvalidRequestError: It cannot be written as JSON.
    """
    return _json(choice, "tool_choice")


def event_of(event: pb.CallEvent) -> GenerateEvent | Prefilled | Failed | None:
    """Read what a request tells; None for what a newer server may tell beside it."""
    kind = event.WhichOneof("event")
    if kind == "text_delta":
        return TextDelta(event.text_delta)
    if kind == "sentence_chunk":
        chunk = event.sentence_chunk
        return SentenceChunk(chunk.index, chunk.text, chunk.final)
    if kind == "thought":
        return Thought(event.thought)
    if kind == "tool_call":
        return _tool_call(event.tool_call)
    if kind == "finished":
        return _finished(event.finished)
    if kind == "prefilled":
        done = event.prefilled
        return Prefilled(_usage(done.usage), done.prefill_ms, done.complete)
    return Failed(error_of_request(event.error)) if kind == "error" else None


def _message(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.rag_context is not None:
        made["rag_context"] = message.rag_context
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": call.tool_call_id, "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    return made


def _tool_call(call: pb.RequestedTool) -> ToolCall | Failed:
    try:
        return ToolCall(call.tool_call_id, call.name, json.loads(call.arguments))
    except ValueError:
        return Failed(EngineError("the server's tool call cannot be read"))


def _finished(event: pb.Finished) -> Finished | Failed:
    try:
        reason = FinishReason(event.finish_reason)
    except ValueError:
        return Failed(EngineError("the server's reason for the end of a reply is not known here"))
    names = [field.name for field in dataclasses.fields(Timings)]
    timings = {name: getattr(event.timings, name) for name in names if event.timings.HasField(name)}
    return Finished(reason, _usage(event.usage), Timings(**timings))


def _usage(usage: call_pb2.Usage) -> Usage:
    return Usage(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)


def _json(value: Any, param: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequestError(f"{param} cannot be written as JSON", param=param) from None
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)
