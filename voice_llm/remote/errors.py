"""Errors of a server, as the exceptions that the engine itself would raise."""

from __future__ import annotations

from contextlib import suppress
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

__all__ = ["error_of_request", "error_of_rpc"]

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

# What gRPC itself, or a proxy, says without our code beside it.
_BY_STATUS: Final[dict[grpc.StatusCode, type[VoiceLLMError]]] = {
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: ForbiddenError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooLargeError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.UNAVAILABLE: EngineDeadError,
    grpc.StatusCode.DEADLINE_EXCEEDED: EngineDeadError,
    grpc.StatusCode.CANCELLED: EngineDeadError,
}


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
    """Return what an RPC that failed as a whole raises."""
    trailers = {str(name): value for name, value in error.trailing_metadata() or ()}
    code, details = trailers.get("error-code"), error.details() or ""
    if isinstance(code, str):
        retry_after_s = None
        with suppress(ValueError):
            retry_after_s = float(trailers.get("retry-after-ms") or "") / 1e3
        return _error(code, details, None, retry_after_s)
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return ConfigError(f"{endpoint} answers gRPC, but has no voice_llm.v1.EngineService", param="endpoint")
    return _BY_STATUS.get(error.code(), EngineError)(f"{endpoint}: {details or error.code().name.lower()}")


def _error(code: str, message: str, param: str | None, retry_after_s: float | None) -> VoiceLLMError:
    if code in _RETRIED:
        return _RETRIED[code](message, **({} if retry_after_s is None else {"retry_after_s": retry_after_s}))
    if code in _PLAIN:
        return _PLAIN[code](message)
    return InvalidRequestError(message, param=param) if code == InvalidRequestError.code else EngineError(message)
