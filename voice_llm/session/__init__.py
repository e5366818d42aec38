"""One phone conversation: history, turns, barge-in, and the events of the call contract."""

from .contract import ClientEvent, parse_client_event
from .events import CallError, CallThought, CallToolCall, Chunk, Ended, Ready, SessionEvent, TurnEnd, to_json
from .history import History, Playback
from .session import CallSession, SessionState

__all__ = [
    "CallError",
    "CallSession",
    "CallThought",
    "CallToolCall",
    "Chunk",
    "ClientEvent",
    "Ended",
    "History",
    "Playback",
    "Ready",
    "SessionEvent",
    "SessionState",
    "TurnEnd",
    "parse_client_event",
    "to_json",
]
