"""What a server says is wrong: the same errors, with the same codes, whichever client is told."""

from __future__ import annotations

import grpc
import pytest

from voice_llm.cli.client import UnreachableError
from voice_llm.cli.endpoints import Endpoints
from voice_llm.cli.grpc_client import GrpcClient
from voice_llm.errors import (
    CallBusyError,
    ContextTooLongError,
    EngineDeadError,
    EngineError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    VoiceLLMError,
    WrongStateError,
)
from voice_llm.remote.errors import error_of_rpc
from voice_llm.servers.status import STATUSES

pytestmark = pytest.mark.unit

HERE = "127.0.0.1:16071"


def failed(status: grpc.StatusCode, *trailers: tuple[str, str]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details="It is so.")


async def told(error: grpc.aio.AioRpcError) -> tuple[VoiceLLMError, VoiceLLMError]:
    """What a remote engine raises, and what the command line."""
    async with GrpcClient(Endpoints(grpc=HERE)) as client:
        return error_of_rpc(error, HERE), client.error_of(error)


@pytest.mark.parametrize("code", STATUSES)
async def test_codes_of_a_server_stay_what_they_are(code: str) -> None:
    status = grpc.StatusCode[STATUSES[code].grpc]
    remote, line = await told(failed(status, ("error-code", code)))
    assert (remote.code, line.code) == (code, code)
    assert type(remote) is type(line)
    assert "It is so." in str(remote)
    assert "It is so." in str(line)


async def test_a_prompt_that_is_too_long_for_the_server_is_that_error_with_its_words() -> None:
    for error in await told(failed(grpc.StatusCode.INVALID_ARGUMENT, ("error-code", "context_too_long"))):
        assert isinstance(error, ContextTooLongError)
        assert str(error) == "It is so."


@pytest.mark.parametrize("code", ["at_capacity", "loading", "draining"])
@pytest.mark.parametrize(("hint", "retry_after_s"), [("2500", 2.5), ("soon", 1.0)])
async def test_a_hint_when_to_come_back_is_passed_on(code: str, hint: str, retry_after_s: float) -> None:
    trailers = (("error-code", code), ("retry-after-ms", hint))
    for error in await told(failed(grpc.StatusCode[STATUSES[code].grpc], *trailers)):
        assert getattr(error, "retry_after_s", None) == retry_after_s


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, TooLargeError),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequestError),
        (grpc.StatusCode.PERMISSION_DENIED, ForbiddenError),
        (grpc.StatusCode.NOT_FOUND, NotFoundError),
        (grpc.StatusCode.ABORTED, CallBusyError),
        (grpc.StatusCode.FAILED_PRECONDITION, WrongStateError),
        (grpc.StatusCode.INTERNAL, EngineError),
    ],
)
async def test_without_a_code_the_status_says_what_is_wrong(status: grpc.StatusCode, kind: type[VoiceLLMError]) -> None:
    assert [type(error) for error in await told(failed(status))] == [kind, kind]


@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
async def test_a_server_that_does_not_answer_is_dead_or_unreachable(status: grpc.StatusCode) -> None:
    remote, line = await told(failed(status))
    assert isinstance(remote, EngineDeadError)
    assert isinstance(line, UnreachableError)
    assert HERE in str(remote)
