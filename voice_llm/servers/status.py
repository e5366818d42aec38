"""What an error looks like on the wire: the one table of codes, and what of an error peers may read."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final

from ..errors import AtCapacityError, DrainingError, InvalidRequestError, LoadingError, VoiceLLMError

__all__ = ["INTERNAL_MESSAGE", "RETRY_AFTER_S", "STATUSES", "ErrorReply", "Status", "reply_to", "status_of"]

logger = logging.getLogger(__name__)

INTERNAL_MESSAGE: Final = "the engine failed; its log says why"
"""All that peers may know of an internal error."""

RETRY_AFTER_S: Final = {"loading": 2.0, "draining": 5.0}
"""Error code -> when trying again is worth it, in seconds, for those that only time mends."""

# Errors quote what was sent, and would else be as long; answers are also kept, for connections that come back.
_MAX_MESSAGE_CHARS: Final = 500
_MAX_PARAM_CHARS: Final = 128


@dataclass(frozen=True, slots=True)
class Status:
    """One error over each interface.

    Attributes:
        http: HTTP status.
        grpc: Name of the gRPC status code.
        ws_close: WebSocket close code where the error ends the connection.
    """

    http: int
    grpc: str
    ws_close: int


STATUSES: Final = {
    "invalid_request": Status(400, "INVALID_ARGUMENT", 4400),
    "context_too_long": Status(400, "INVALID_ARGUMENT", 4400),
    "unauthenticated": Status(401, "UNAUTHENTICATED", 4401),
    "forbidden": Status(403, "PERMISSION_DENIED", 4403),
    "not_found": Status(404, "NOT_FOUND", 4404),
    "call_busy": Status(409, "ABORTED", 4409),
    "wrong_state": Status(409, "FAILED_PRECONDITION", 4409),
    "too_large": Status(413, "RESOURCE_EXHAUSTED", 1009),
    "at_capacity": Status(429, "RESOURCE_EXHAUSTED", 1013),
    "loading": Status(503, "UNAVAILABLE", 1012),
    "draining": Status(503, "UNAVAILABLE", 1012),
    "slow_consumer": Status(408, "ABORTED", 1008),
    "internal": Status(500, "INTERNAL", 1011),
}
"""Error code -> status; a code that is not here is ``internal``."""


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """What a peer may know of an error.

    Attributes:
        code: A key of ``STATUSES``.
        message: For people, in at most 500 characters; says nothing of an internal error.
        param: Name of the offending field, where there is one, in at most 128 characters.
        retry_after_s: When trying again is worth it.
    """

    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None

    @property
    def status(self) -> Status:
        """The statuses of its code."""
        return STATUSES[self.code]

    def as_json(self) -> dict[str, Any]:
        """Return the body that HTTP clients get, in the form of OpenAI's."""
        kind = "server_error" if self.status.http >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "code": self.code, "param": self.param}}


def status_of(code: str) -> Status:
    """Return the statuses of an error code."""
    return STATUSES.get(code, STATUSES["internal"])


def reply_to(error: BaseException) -> ErrorReply:
    """Return what a peer may know of ``error``; what it may not know goes to the log."""
    if not isinstance(error, VoiceLLMError) or error.code not in STATUSES or error.code == "internal":
        logger.error("a request failed: %s", type(error).__name__, exc_info=error)
        return ErrorReply("internal", INTERNAL_MESSAGE)
    param = error.param if isinstance(error, InvalidRequestError) else None
    param = None if param is None else _cut(param, _MAX_PARAM_CHARS)
    hint_s = error.retry_after_s if isinstance(error, (AtCapacityError, LoadingError, DrainingError)) else None
    return ErrorReply(error.code, _cut(str(error), _MAX_MESSAGE_CHARS), param, hint_s)


def _cut(text: str, most_chars: int) -> str:
    return text if len(text) <= most_chars else text[: most_chars - 3] + "..."
