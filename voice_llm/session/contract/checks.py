"""Checks of client events that hold whatever they were written in."""

from __future__ import annotations

from typing import Final

from ...errors import InvalidRequestError
from .messages import ClientEvent, Confirm, Played, Start, ToolResult, Turn, Withdraw

__all__ = ["check_event", "check_id"]

_MAX_ID_CHARS: Final = 128


def check_id(value: str, param: str) -> str:
    """Return a name that a peer gave to a call, a turn or a tool call.

    Raises:
        InvalidRequestError: It is empty, too long, or holds what cannot be printed.
    """
    if not value or len(value) > _MAX_ID_CHARS or not value.isprintable():
        raise InvalidRequestError(f"{param} must be 1 to {_MAX_ID_CHARS} printable characters", param=param)
    return value


def check_event(event: ClientEvent) -> None:
    """Refuse an event that lacks what it is about.

    Raises:
        InvalidRequestError: A name is missing or cannot be one, a turn has no words, or a field has no effect.
    """
    if isinstance(event, (Turn, Confirm, Withdraw, Played)):
        check_id(event.turn_id, "turn_id")
    if isinstance(event, Turn) and not event.text.strip():
        raise InvalidRequestError("a turn needs the words that were said", param="text")
    if isinstance(event, ToolResult):
        check_id(event.tool_call_id, "tool_call_id")
    if isinstance(event, Start) and event.call_id:
        check_id(event.call_id, "call_id")
    if isinstance(event, Start) and event.last_turn_id and not event.resume_token:
        raise InvalidRequestError("last_turn_id goes with a resume_token", param="last_turn_id")
