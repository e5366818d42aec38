"""Chat messages, validated at the edge of the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from ..errors import InvalidRequestError

Role = Literal["system", "user", "assistant", "tool"]

_ROLES: frozenset[str] = frozenset(get_args(Role))
_KEYS = frozenset({"role", "content", "rag_context"})


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat.

    Attributes:
        role: Who speaks.
        content: What is said; data, whatever it looks like.
        rag_context: Retrieved text that belongs to this question; user messages only.
    """

    role: Role
    content: str
    rag_context: str | None = None


def parse_messages(messages: Sequence[Message | Mapping[str, Any]]) -> tuple[Message, ...]:
    """Validate a chat and strip the white space around each content.

    Dictionaries have ``role``, ``content`` (a string, or a list of ``{"type": "text", "text": ...}`` parts, which are
    joined) and, for a user message, ``rag_context``. The role ``developer`` means ``system`` in the first message and
    ``user`` after it.

    Raises:
        InvalidRequestError: There is no message, or one cannot be used as written; ``param`` names the field.
    """
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InvalidRequestError("messages must be a list of messages", param="messages")
    if not messages:
        raise InvalidRequestError("messages must hold at least one message", param="messages")
    return tuple(_parse_message(message, index) for index, message in enumerate(messages))


def check_text(value: object, param: str) -> str:
    """Return ``value`` without the white space around it.

    Raises:
        InvalidRequestError: It is not a string, or holds half of a character that JSON escapes in two (a lone
            surrogate).
    """
    if not isinstance(value, str):
        raise InvalidRequestError(f"{param} must be a string, not {type(value).__name__}", param=param)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{param} is not valid Unicode: it holds a lone surrogate", param=param) from None
    return value.strip()


def _parse_message(message: Message | Mapping[str, Any], index: int) -> Message:
    where = f"messages[{index}]"
    if isinstance(message, Message):
        message = {"role": message.role, "content": message.content, "rag_context": message.rag_context}
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"{where} must be an object with role and content", param=where)
    for key in message:
        if key not in _KEYS:
            raise InvalidRequestError(f"{where} has the unknown field {key!r}", param=f"{where}.{key}")
    role = _parse_role(message.get("role"), index)
    content = check_text(_join_parts(message.get("content"), f"{where}.content"), f"{where}.content")
    return Message(role, content, _parse_rag(message.get("rag_context"), role, f"{where}.rag_context"))


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


def _join_parts(content: object, param: str) -> object:
    if isinstance(content, (str, bytes)) or not isinstance(content, Sequence):
        return content
    texts: list[str] = []
    for number, part in enumerate(content):
        where = f"{param}[{number}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping) or kind != "text":
            raise InvalidRequestError(f"{where}: only parts of type 'text' can be used, not {kind!r}", param=where)
        for key in part:
            if key not in ("type", "text"):
                raise InvalidRequestError(f"{where} has the unknown field {key!r}", param=f"{where}.{key}")
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
