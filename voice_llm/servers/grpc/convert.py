"""Protobuf messages of the call contract, from and to what sessions speak."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from ..._proto import call_pb2 as pb
from ...config.sampling import MAX_STOPS
from ...errors import InvalidRequestError
from ...events import Timings, Usage
from ...session import CallError, CallThought, CallToolCall, Chunk, Ended, Ready, SessionEvent, TurnEnd
from ...session.contract import ClientEvent, parse_client_event
from .struct import plain_struct, plain_value, struct_of

__all__ = ["client_event", "server_event"]

_MAX_INT32: Final = 2**31 - 1
# As many as a prompt takes.
_MAX_TOOLS: Final = 128


def client_event(message: pb.ClientEvent, *, max_messages: int) -> ClientEvent | InvalidRequestError:
    """Read an event by the rules that hold for its JSON form, too; what is wrong with it is returned, not raised.

    Args:
        message: The event.
        max_messages: Most messages of a history.
    """
    kind = message.WhichOneof("event")
    if kind is None:
        return InvalidRequestError("the event is empty, or of an unknown type", param="event")
    try:
        _check_counts(message, max_messages)
        fields = _plain_fields(getattr(message, kind))
        return parse_client_event({"type": kind, **fields}, max_messages=max_messages)
    except InvalidRequestError as error:
        return error.as_value()


def server_event(event: SessionEvent) -> pb.ServerEvent:
    """Write an event; what is unknown is left at protobuf's default."""
    match event:
        case Ready():
            ready = pb.Ready(call_id=event.call_id, usage=_usage(event.usage), prefill_ms=event.prefill_ms)
            ready.resume_token = event.resume_token or ""
            return pb.ServerEvent(ready=ready)
        case Chunk():
            chunk = pb.Chunk(turn_id=event.turn_id, index=event.index, text=event.text, final=event.final)
            return pb.ServerEvent(chunk=chunk)
        case CallToolCall():
            call = pb.ToolCall(turn_id=event.turn_id, tool_call_id=event.tool_call_id, name=event.name)
            call.arguments.CopyFrom(struct_of(event.arguments))
            return pb.ServerEvent(tool_call=call)
        case TurnEnd():
            return pb.ServerEvent(turn_end=_turn_end(event))
        case CallError():
            error = pb.Error(code=event.code, message=event.message, fatal=event.fatal, turn_id=event.turn_id or "")
            error.retry_after_s = event.retry_after_s or 0.0
            return pb.ServerEvent(error=error)
        case CallThought():
            return pb.ServerEvent(thought=pb.Thought(turn_id=event.turn_id, text=event.text))
        case Ended():
            ended = pb.Ended(reason=event.reason, turns=event.turns, duration_s=event.duration_s)
            ended.usage.CopyFrom(_usage(event.usage))
            return pb.ServerEvent(ended=ended)


def _check_counts(message: pb.ClientEvent, max_messages: int) -> None:
    """Refuse a list that is too long before anything is made of what is in it."""
    params = message.start.params if message.HasField("start") else message.turn.params
    _check_count(message.start.history, max_messages, "history")
    _check_count(message.start.tools, _MAX_TOOLS, "tools")
    _check_count(params.stop, MAX_STOPS, "params.stop")


def _check_count(items: Sized, most: int, param: str) -> None:
    if len(items) > most:
        raise InvalidRequestError(f"{param} has {len(items)} items; allowed are {most}", param=param)


def _plain_fields(message: Message) -> dict[str, Any]:
    """Return a message's fields by name; what can be unset and is, is left out."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        fields[field.name] = [_plain(each) for each in value] if field.is_repeated else _plain(value)
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return plain_struct(value)
    if isinstance(value, Value):
        return plain_value(value)
    return _plain_fields(value) if isinstance(value, Message) else value


def _turn_end(event: TurnEnd) -> pb.TurnEnd:
    return pb.TurnEnd(
        turn_id=event.turn_id,
        finish_reason=event.finish_reason.value,
        usage=_usage(event.usage),
        timings=_timings(event.timings),
    )


def _usage(usage: Usage) -> pb.Usage:
    """Return token counts; the sums of a very long call end at what the field holds."""
    return pb.Usage(
        prompt_tokens=min(usage.prompt_tokens, _MAX_INT32),
        cached_tokens=min(usage.cached_tokens, _MAX_INT32),
        completion_tokens=min(usage.completion_tokens, _MAX_INT32),
    )


def _timings(timings: Timings) -> pb.Timings:
    return pb.Timings(
        queue_ms=timings.queue_ms or 0.0,
        prefill_ms=timings.prefill_ms or 0.0,
        first_token_ms=timings.first_token_ms or 0.0,
        first_chunk_ms=timings.first_chunk_ms or 0.0,
        total_ms=timings.total_ms or 0.0,
    )
