"""Chat messages, validated at the edge of the prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from ..errors import InvalidRequestError
from ..events import ToolCall
from .checks import check_fields, check_text, check_tool_name

Role = Literal["system", "user", "assistant", "tool"]

_ROLES: frozenset[str] = frozenset(get_args(Role))
_FIELDS = frozenset({"role", "content", "rag_context", "tool_calls", "tool_call_id"})


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat.

    Attributes:
        role: Who speaks.
        content: What is said; data, whatever it looks like.
        rag_context: Retrieved text that belongs to this question; user messages only.
        tool_calls: What the assistant asked of tools, after its words; assistant messages only.
        tool_call_id: Which of these calls the message answers; tool messages only.
    """

    role: Role
    content: str = ""
    rag_context: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


def parse_messages(messages: Sequence[Message | Mapping[str, Any]]) -> tuple[Message, ...]:
    """Validate a chat and strip the white space around each content.

    Dictionaries have ``role``, ``content`` (a string, or a list of ``{"type": "text", "text": ...}`` parts, which are
    joined) and, for a user message, ``rag_context``. An assistant message may have ``tool_calls`` as OpenAI writes them
    (``arguments`` as JSON text or as an object) and needs no content then; a ``tool`` message, the result of a call,
    may have ``tool_call_id``, and a content of any JSON type. The role ``developer`` means ``system`` in the first
    message and ``user`` after it.

    Raises:
        InvalidRequestError: There is no message, or one cannot be used as written; ``param`` names the field.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InvalidRequestError("messages must be a list of messages", param="messages")
    if not messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages")
    return tuple(_parse_message(message, index) for index, message in enumerate(messages))


def _parse_message(message: Message | Mapping[str, Any], index: int) -> Message:
    where = f"messages[{index}]"
    if isinstance(message, Message):
        message = {name: value for name in _FIELDS if (value := getattr(message, name)) not in (None, ())}
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"{where} must be an object with role and content", param=where)
    check_fields(message, _FIELDS, where)
    role = _parse_role(message.get("role"), index)
    calls = _parse_calls(message.get("tool_calls"), role, f"{where}.tool_calls")
    return Message(
        role,
        _parse_content(message.get("content"), role, bool(calls), f"{where}.content"),
        _parse_rag(message.get("rag_context"), role, f"{where}.rag_context"),
        calls,
        _parse_call_id(message.get("tool_call_id"), role, f"{where}.tool_call_id"),
    )


def _parse_role(role: object, index: int) -> Role:
    param = f"messages[{index}].role"
    if role == "developer":
        return "user" if index else "system"
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidRequestError(f"{param} must be one of {', '.join(get_args(Role))}, not {role!r}", param=param)
    if role == "system" and index:
        raise InvalidRequestError(
            f"{param}: only the first message may be a system message; send later instructions as user messages",
            param=param,
        )
    return cast(Role, role)


def _parse_content(content: object, role: Role, has_calls: bool, param: str) -> str:
    if content is None and has_calls:
        return ""
    if role == "tool" and not isinstance(content, (str, list, tuple)):
        try:
            content = json.dumps(content, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError):
            raise InvalidRequestError(f"{param} cannot be written as JSON", param=param) from None
    return check_text(_join_parts(content, param), param)


def _parse_calls(calls: object, role: Role, param: str) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if role != "assistant":
        raise InvalidRequestError(f"{param}: only an assistant message may have tool calls", param=param)
    if isinstance(calls, (str, bytes)) or not isinstance(calls, Sequence):
        raise InvalidRequestError(f"{param} must be a list of tool calls", param=param)
    return tuple(_parse_call(call, f"{param}[{number}]") for number, call in enumerate(calls))


def _parse_call(call: object, where: str) -> ToolCall:
    if isinstance(call, ToolCall):
        function = {"name": call.name, "arguments": call.arguments}
        call = {"id": call.tool_call_id, "function": function}
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        raise InvalidRequestError(f"{where} must be an object with a function", param=where)
    check_fields(call, ("id", "type", "function", "index"), where)
    if (kind := call.get("type", "function")) != "function":
        raise InvalidRequestError(f"{where}.type must be 'function', not {kind!r}", param=f"{where}.type")
    function = call["function"]
    check_fields(function, ("name", "arguments"), f"{where}.function")
    name = check_tool_name(function.get("name"), f"{where}.function.name")
    arguments = _parse_arguments(function.get("arguments"), f"{where}.function.arguments")
    return ToolCall(check_text(call.get("id") or "", f"{where}.id"), name, arguments)


def _parse_arguments(arguments: object, param: str) -> dict[str, Any]:
    try:
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, allow_nan=False)
        parsed = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(parsed, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as e:
        raise InvalidRequestError(f"{param} must be a JSON object: {e}", param=param) from None
    if not isinstance(parsed, dict):
        raise InvalidRequestError(f"{param} must be a JSON object, not {type(parsed).__name__}", param=param)
    return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse_call_id(call_id: object, role: Role, param: str) -> str | None:
    if call_id is None:
        return None
    if role != "tool":
        raise InvalidRequestError(f"{param}: only a tool message may answer a tool call", param=param)
    return check_text(call_id, param)


def _join_parts(content: object, param: str) -> object:
    if isinstance(content, (str, bytes)) or not isinstance(content, Sequence):
        return content
    texts: list[str] = []
    for number, part in enumerate(content):
        where = f"{param}[{number}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping) or kind != "text":
            raise InvalidRequestError(f"{where}: only parts of type 'text' can be used, not {kind!r}", param=where)
        check_fields(part, ("type", "text"), where)
        text = part.get("text")
        if not isinstance(text, str):
            raise InvalidRequestError(f"{where}.text must be a string", param=f"{where}.text")
        texts.append(text)
    return "".join(texts)


def _parse_rag(rag_context: object, role: Role, param: str) -> str | None:
    if rag_context is None:
        return None
    if role != "user":
        raise InvalidRequestError(f"{param}: only a user message may carry its own RAG context", param=param)
    return check_text(rag_context, param) or None
