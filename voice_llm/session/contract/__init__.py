"""The call contract's client events: what they are, and how they are read from JSON."""

from .checks import check_event, check_id
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
from .reading import parse_client_event

__all__ = [
    "ClientEvent",
    "Confirm",
    "Context",
    "End",
    "Interrupt",
    "Params",
    "Partial",
    "Played",
    "Start",
    "ToolResult",
    "Turn",
    "Withdraw",
    "check_event",
    "check_id",
    "parse_client_event",
]
