"""Client events from JSON, read strictly: a field that is not known or not of its type is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ...config.sampling import MAX_STOPS
from ...errors import InvalidRequestError
from ...prompt import Message, Tool, parse_messages, parse_tools
from .checks import check_event
from .messages import (
    ClientEvent,
    Confirm,
    Context,
    End,
    Interrupt,
    Params,
    Partial,
    Played,
    Start,
    ToolResult,
    Turn,
    Withdraw,
)

__all__ = ["parse_client_event"]

Reader = Callable[[Any, str], Any]
"""Turns a JSON value into that of a field; given the field's name for errors."""

# Counts are checked before anything is read: reading takes microseconds an item, on an event loop.
_MAX_MESSAGES: Final = 16_384
_MAX_TOOLS: Final = 128
_INT32: Final = 2**31
_MAX_DEPTH: Final = 64


def parse_client_event(data: Mapping[str, Any], *, max_messages: int = _MAX_MESSAGES) -> ClientEvent:
    """Read one event; missing fields have protobuf's defaults.

    Args:
        data: The JSON object; ``type`` names the event.
        max_messages: Most messages of a history.

    Raises:
        InvalidRequestError: The type or a field is unknown, or a value is not of its type; ``param`` names it.
    """
    if not isinstance(data, Mapping):
        raise InvalidRequestError("an event must be a JSON object")
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in _EVENTS:
        raise InvalidRequestError(f"type must be one of {', '.join(_EVENTS)}", param="type")
    if kind == "start" and isinstance(data.get("history"), list):
        _check_count(data["history"], "history", max_messages)
    make, fields = _EVENTS[kind]
    event: ClientEvent = make(**_read_fields({k: v for k, v in data.items() if k != "type"}, fields, ""))
    check_event(event)
    return event


def _read_fields(data: Mapping[str, Any], fields: Mapping[str, Reader], where: str) -> dict[str, Any]:
    values = {}
    for name, value in data.items():
        param = f"{where}{name}"
        if name not in fields:
            raise InvalidRequestError(f"{param!r} is not a known field", param=param)
        values[name] = fields[name](value, param)
    return values


def _optional(reader: Reader) -> Reader:
    return lambda value, param: None if value is None else reader(value, param)


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise _wrong_type(param, "a string", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{param} is not valid Unicode: it holds a lone surrogate", param=param) from None
    return value


def _whole(value: Any, param: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT32 <= value < _INT32:
        raise _wrong_type(param, "a whole number of 32 bits", value)
    return value


def _seed(value: Any, param: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(param, "a whole number", value)
    return value


def _number(value: Any, param: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong_type(param, "a number", value)
    return value


def _flag(value: Any, param: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(param, "true or false", value)
    return value


def _object(value: Any, param: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong_type(param, "an object", value)
    return dict(_anything(value, param))


def _anything(value: Any, param: str) -> Any:
    _check_depth(value, param, _MAX_DEPTH)
    return value


def _check_depth(value: Any, param: str, left: int) -> None:
    if left == 0:
        raise InvalidRequestError(f"{param} is nested more than {_MAX_DEPTH} deep", param=param)
    if isinstance(value, (Mapping, list)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            _check_depth(inner, param, left - 1)


def _list(value: Any, param: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong_type(param, "a list", value)
    return value


def _check_count(items: list[Any], param: str, most: int) -> list[Any]:
    if len(items) > most:
        raise InvalidRequestError(f"{param} has {len(items)} items, more than {most}", param=param)
    return items


def _stop(value: Any, param: str) -> tuple[str, ...]:
    items = _check_count(_list(value, param), param, MAX_STOPS)
    return tuple(_text(item, f"{param}[{index}]") for index, item in enumerate(items))


def _messages(value: Any, param: str) -> tuple[Message, ...]:
    items = [
        _read_fields(_object(item, f"{param}[{index}]"), _MESSAGE, f"{param}[{index}].")
        for index, item in enumerate(_list(value, param))
    ]
    return parse_messages(items) if items else ()


def _tools(value: Any, param: str) -> tuple[Tool, ...]:
    items = [
        _read_fields(_object(item, f"{param}[{index}]"), _TOOL, f"{param}[{index}].")
        for index, item in enumerate(_check_count(_list(value, param), param, _MAX_TOOLS))
    ]
    return parse_tools(items)


def _params(value: Any, param: str) -> Params:
    return Params(**_read_fields(_object(value, param), _PARAMS, f"{param}."))


def _wrong_type(param: str, expected: str, value: Any) -> InvalidRequestError:
    return InvalidRequestError(f"{param} must be {expected}, not {type(value).__name__}", param=param)


_MESSAGE: Final[dict[str, Reader]] = {"role": _text, "content": _text}
_TOOL: Final[dict[str, Reader]] = {"name": _text, "description": _text, "parameters": _object}
_PARAMS: Final[dict[str, Reader]] = {
    "max_tokens": _optional(_whole),
    "temperature": _optional(_number),
    "top_k": _optional(_whole),
    "top_p": _optional(_number),
    "min_p": _optional(_number),
    "repetition_penalty": _optional(_number),
    "presence_penalty": _optional(_number),
    "frequency_penalty": _optional(_number),
    "stop": _stop,
    "seed": _optional(_seed),
    "grammar": _optional(_text),
    "json_schema": _optional(_object),
    "tool_choice": _optional(_text),
    "reasoning_effort": _optional(_text),
    "pacing": _optional(_text),
    "lora_adapter_id": _optional(_text),
    "first_chunk": _optional(_text),
}
_EVENTS: Final[dict[str, tuple[Callable[..., ClientEvent], dict[str, Reader]]]] = {
    "start": (
        Start,
        {
            "call_id": _text,
            "profile": _text,
            "system_prompt": _text,
            "rag_context": _text,
            "history": _messages,
            "tools": _tools,
            "params": _params,
            "language": _text,
            "resume_token": _text,
            "last_turn_id": _text,
            "last_index": _whole,
        },
    ),
    "partial": (lambda text="": Partial(text), {"text": _text}),
    "turn": (
        lambda turn_id="", text="", **rest: Turn(turn_id, text, **rest),
        {
            "turn_id": _text,
            "text": _text,
            "rag_context": _optional(_text),
            "speculative": _flag,
            "params": _optional(_params),
        },
    ),
    "confirm": (lambda turn_id="": Confirm(turn_id), {"turn_id": _text}),
    "withdraw": (lambda turn_id="": Withdraw(turn_id), {"turn_id": _text}),
    "played": (
        lambda turn_id="", index=0, played_ms=0: Played(turn_id, index, played_ms),
        {"turn_id": _text, "index": _whole, "played_ms": _whole},
    ),
    "interrupt": (Interrupt, {"spoken_text": _optional(_text)}),
    "context": (lambda rag_context="": Context(rag_context), {"rag_context": _text}),
    "tool_result": (
        lambda tool_call_id="", result=None: ToolResult(tool_call_id, result),
        {"tool_call_id": _text, "result": _anything},
    ),
    "end": (End, {"reason": _text}),
}
