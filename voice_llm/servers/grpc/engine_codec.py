"""What ``HoldCall`` carries, between protobuf with JSON in it and the values that a call takes and gives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from ..._proto import call_pb2
from ..._proto import engine_pb2 as pb
from ...config import SamplingParams
from ...errors import ContextTooLongError, EngineDeadError, InvalidRequestError
from ...events import Finished, FinishReason, GenerateEvent, Prefilled, SentenceChunk, TextDelta, Thought, Usage
from ..status import reply_to
from ..strict_json import read_json

__all__ = [
    "Age",
    "age_of",
    "cancel_reason_of",
    "error_event",
    "event_of",
    "messages_of",
    "params_of",
    "tool_choice_of",
    "tools_of",
]

_MAX_AGE_S: Final = 60.0
_MAX_BELIEVED_AGE_S: Final = 1.0
_SINCE_ARRIVAL: Final = ("queue_ms", "first_token_ms", "first_chunk_ms", "total_ms")
_CANCEL_REASONS: Final = (FinishReason.CANCELLED, FinishReason.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class Age:
    """How long ago a request is said to have arrived at its client's edge.

    Attributes:
        believed_s: What decides its place among the requests of others: a client could else go before all of them.
        beyond_s: What its client is told of in timings alone.
    """

    believed_s: float
    beyond_s: float


async def messages_of(prompt: pb.Prompt, *, max_messages: int) -> Any:
    """Read a prompt's messages; what is in them is checked where they are used.

    Raises:
        InvalidRequestError: They are not JSON, or there are too many.
    """
    messages = await _json_of(prompt.messages, "messages")
    if isinstance(messages, list) and len(messages) > max_messages:
        raise InvalidRequestError(f"there are {len(messages)} messages, more than {max_messages}", param="messages")
    return messages


async def tools_of(prompt: pb.Prompt) -> Any:
    """Read a prompt's tools, as ``messages_of``."""
    return await _json_of(prompt.tools, "tools") if prompt.tools else ()


async def params_of(text: str, default: SamplingParams) -> SamplingParams:
    """Read sampling parameters; without any, they are the profile's.

    Raises:
        InvalidRequestError: They are not a JSON object, or one is unknown or out of range.
    """
    if not text:
        return default
    fields = await _json_of(text, "params")
    if not isinstance(fields, dict):
        raise InvalidRequestError("params must be a JSON object", param="params")
    return SamplingParams().replace(**fields)


async def tool_choice_of(text: str) -> Any:
    """Read a tool choice, as ``messages_of``."""
    return await _json_of(text, "tool_choice") if text else "auto"


def age_of(age_s: float) -> Age:
    """Read how long ago a request is said to have arrived.

    Raises:
        InvalidRequestError: It is not between 0 and 60 seconds.
    """
    if not 0 <= age_s <= _MAX_AGE_S:
        raise InvalidRequestError(f"age_s must be between 0 and {_MAX_AGE_S:.0f}, not {age_s!r}", param="age_s")
    believed_s = min(age_s, _MAX_BELIEVED_AGE_S)
    return Age(believed_s, age_s - believed_s)


def cancel_reason_of(reason: str) -> FinishReason:
    """Read the reason of a cancel.

    Raises:
        InvalidRequestError: It is none.
    """
    if (reason or FinishReason.CANCELLED) not in _CANCEL_REASONS:
        allowed = " or ".join(_CANCEL_REASONS)
        raise InvalidRequestError(f"reason must be {allowed}, not {reason!r}", param="reason")
    return FinishReason(reason or FinishReason.CANCELLED)


def event_of(request_id: int, event: GenerateEvent | Prefilled, age: Age) -> pb.CallEvent:
    """Write what a request of that age tells its reader."""
    made = pb.CallEvent(request_id=request_id)
    if isinstance(event, TextDelta):
        made.text_delta = event.text
    elif isinstance(event, SentenceChunk):
        made.sentence_chunk.CopyFrom(pb.SentenceChunk(index=event.index, text=event.text, final=event.final))
    elif isinstance(event, Thought):
        made.thought = event.text
    elif isinstance(event, Finished):
        made.finished.CopyFrom(_finished(event, age))
    elif isinstance(event, Prefilled):
        usage = _usage(event.usage)
        made.prefilled.CopyFrom(pb.Prefilled(usage=usage, prefill_ms=event.prefill_ms, complete=event.complete))
    else:
        arguments = json.dumps(event.arguments, ensure_ascii=False)
        tool = pb.RequestedTool(tool_call_id=event.tool_call_id, name=event.name, arguments=arguments)
        made.tool_call.CopyFrom(tool)
    return made


def error_event(request_id: int, error: Exception) -> pb.CallEvent:
    """Write why a request failed, as far as its client may know."""
    reply = reply_to(error)
    failed = pb.RequestError(code=reply.code, message=reply.message, engine_dead=isinstance(error, EngineDeadError))
    if reply.param is not None:
        failed.param = reply.param
    if reply.retry_after_s is not None:
        failed.retry_after_s = reply.retry_after_s
    if isinstance(error, ContextTooLongError):
        lengths = {name: getattr(error, name) for name in ("prompt_tokens", "max_tokens", "context_tokens")}
        failed.context_too_long.CopyFrom(pb.ContextTooLong(**lengths))
    return pb.CallEvent(request_id=request_id, error=failed)


def _finished(event: Finished, age: Age) -> pb.Finished:
    timings = {name: getattr(event.timings, name) for name in event.timings.__slots__}
    for name in _SINCE_ARRIVAL:
        if timings[name] is not None:
            timings[name] += age.beyond_s * 1e3
    return pb.Finished(finish_reason=event.reason, usage=_usage(event.usage), timings=pb.OptionalTimings(**timings))


def _usage(usage: Usage) -> call_pb2.Usage:
    return call_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
    )


async def _json_of(text: str, param: str) -> Any:
    try:
        return await read_json(text, what=param)
    except InvalidRequestError as error:
        raise InvalidRequestError(str(error), param=param) from None
