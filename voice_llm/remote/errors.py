"""Errors of a server, as the exceptions that the engine itself would raise."""

from __future__ import annotations

from typing import Final

import grpc

from .._proto import engine_pb2 as pb
from ..errors import (
    AtCapacityError,
    CallBusyError,
    ConfigError,
    ContextTooLongError,
    DrainingError,
    EngineDeadError,
    EngineError,
    ForbiddenError,
    InvalidRequestError,
    LoadingError,
    NotFoundError,
    SlowConsumerError,
    TooLargeError,
    UnauthenticatedError,
    VoiceLLMError,
    WrongStateError,
)

__all__ = ["RemoteContextTooLongError", "error_of_request", "error_of_rpc", "error_of_status", "has_own_code"]

_PLAIN: Final[dict[str, type[VoiceLLMError]]] = {
    kind.code: kind
    for kind in (
        CallBusyError,
        ForbiddenError,
        NotFoundError,
        SlowConsumerError,
        TooLargeError,
        UnauthenticatedError,
        WrongStateError,
    )
}
_RETRIED: Final = {kind.code: kind for kind in (AtCapacityError, DrainingError, LoadingError)}

_CODE: Final = "error-code"

# What gRPC itself, a proxy, or another server of the same contract says, without our code beside it.
_BY_STATUS: Final[dict[grpc.StatusCode, type[VoiceLLMError]]] = {
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: ForbiddenError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooLargeError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ABORTED: CallBusyError,
    grpc.StatusCode.FAILED_PRECONDITION: WrongStateError,
    grpc.StatusCode.UNAVAILABLE: EngineDeadError,
    grpc.StatusCode.DEADLINE_EXCEEDED: EngineDeadError,
    grpc.StatusCode.CANCELLED: EngineDeadError,
}


class RemoteContextTooLongError(ContextTooLongError):
    """Prompt and reserved reply do not fit, as a server says in words alone: its numbers are all 0."""

    def __init__(self, message: str) -> None:
        super().__init__(prompt_tokens=0, max_tokens=0, context_tokens=0)
        self._message = message

    def __str__(self) -> str:
        return self._message


def error_of_request(failed: pb.RequestError) -> VoiceLLMError:
    """Return what a failed request raises."""
    if failed.HasField("context_too_long"):
        lengths = failed.context_too_long
        return ContextTooLongError(
            prompt_tokens=lengths.prompt_tokens,
            max_tokens=lengths.max_tokens,
            context_tokens=lengths.context_tokens,
        )
    if failed.engine_dead:
        return EngineDeadError(failed.message)
    param = failed.param if failed.HasField("param") else None
    return _error(failed.code, failed.message, param, failed.retry_after_s or None)


def error_of_rpc(error: grpc.aio.AioRpcError, endpoint: str) -> VoiceLLMError:
    """Return what an RPC of an engine elsewhere that failed as a whole raises."""
    if has_own_code(error):
        return error_of_status(error)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return ConfigError(f"{endpoint} answers gRPC, but has no voice_llm.v1.EngineService", param="endpoint")
    known = error_of_status(error)
    return type(known)(f"{endpoint}: {known}")


def error_of_status(error: grpc.aio.AioRpcError) -> VoiceLLMError:
    """Return what a failed RPC's code says or, without one of ours, its status; an ``EngineError`` if neither does."""
    trailers = _trailers(error)
    code, status, details = trailers.get(_CODE), error.code(), error.details() or ""
    if code is None:
        return _BY_STATUS.get(status, EngineError)(details or status.name.lower())
    hint_ms = trailers.get("retry-after-ms", "")
    return _error(code, details, None, int(hint_ms) / 1e3 if hint_ms.isdecimal() else None)


def has_own_code(error: grpc.aio.AioRpcError) -> bool:
    """Whether a server of ours has said what is wrong, beside the status."""
    return _CODE in _trailers(error)


def _trailers(error: grpc.aio.AioRpcError) -> dict[str, str]:
    return {str(name): value for name, value in error.trailing_metadata() or () if isinstance(value, str)}


def _error(code: str, message: str, param: str | None, retry_after_s: float | None) -> VoiceLLMError:
    if code in _RETRIED:
        return _RETRIED[code](message, **({} if retry_after_s is None else {"retry_after_s": retry_after_s}))
    if code in _PLAIN:
        return _PLAIN[code](message)
    if code == RemoteContextTooLongError.code:
        return RemoteContextTooLongError(message)
    return InvalidRequestError(message, param=param) if code == InvalidRequestError.code else EngineError(message)
