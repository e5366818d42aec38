"""``voice-llm interrupt-test``: speak over a reply and see how soon it stops, over Converse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EngineError
from .client import consoles, print_json, require, run_client
from .endpoints import (
    DEFAULT_GRPC,
    ApiKeyOption,
    Endpoints,
    GrpcEndpointOption,
    TenantOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
)
from .exit_codes import ExitCode
from .interruption import Interruption
from .options import JsonOption

if TYPE_CHECKING:
    from .grpc_client import Conversation

__all__ = ["interrupt_often", "interrupt_test"]

_LONG_QUESTION = "Please tell me a long story about a lighthouse, with many details. Do not stop early."
_NEXT_QUESTION = "Thank you. In one sentence: what was it about?"
_LONG_REPLY_TOKENS = 512
_SHORT_REPLY_TOKENS = 48


def interrupt_test(
    iterations: Annotated[int, typer.Option(help="How often.", min=1, metavar="N")] = 1,
    after_chunks: Annotated[
        int, typer.Option(help="Chunks of the reply to hear before speaking over it.", min=1, metavar="N")
    ] = 1,
    timeout_s: Annotated[float, typer.Option(help="Longest time for one of them.", min=1, metavar="SECONDS")] = 60.0,
    as_json: JsonOption = False,
    grpc_endpoint: GrpcEndpointOption = DEFAULT_GRPC,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tenant: TenantOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Speak over a long reply: shows how soon the turn ends interrupted, and that the next one is answered.

    Ends with 1 where one of both is not so.
    """

    async def run() -> ExitCode:
        endpoints = Endpoints.of_grpc(grpc_endpoint, tls_ca, tls_cert, tls_key, tenant, api_key)
        return await interrupt_often(
            endpoints, iterations=iterations, after_chunks=after_chunks, timeout_s=timeout_s, as_json=as_json
        )

    run_client(run, as_json=as_json)


async def interrupt_often(
    endpoints: Endpoints, *, iterations: int, after_chunks: int, timeout_s: float, as_json: bool
) -> ExitCode:
    """Hold ``iterations`` calls, each with an interruption, and print what came of them.

    Raises:
        VoiceLLMError: The server is not there, refuses a call, or does not answer in time.
    """
    out, err = consoles()
    failed = False
    async with require("grpc_client").GrpcClient(endpoints) as client:
        for i in range(iterations):
            result = await _interrupt(client.converse(), after_chunks=after_chunks, timeout_s=timeout_s)
            failed = failed or not result.passed
            if as_json:
                print_json({"iteration": i + 1} | result.as_json())
            else:
                console = out if result.passed else err
                console.print(f"{i + 1:>3}  {result}", style=None if result.passed else "red", markup=False)
    return ExitCode.FAILED if failed else ExitCode.DONE


async def _interrupt(
    conversation: Conversation,
    *,
    after_chunks: int,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Interruption:
    """Hold one call: a long reply, an interruption, and a next turn.

    Raises:
        VoiceLLMError: The server is not there, refuses the call, or does not answer in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _hold(conversation, after_chunks, clock)
    except TimeoutError:
        raise EngineError(f"the call was not over after {timeout_s:g} s") from None
    finally:
        conversation.cancel()


async def _hold(conversation: Conversation, after_chunks: int, clock: Callable[[], float]) -> Interruption:
    await conversation.send(start={})
    await _until(conversation, "ready", lambda name, _: None)
    await conversation.send(
        turn={"turn_id": "long", "text": _LONG_QUESTION, "params": {"max_tokens": _LONG_REPLY_TOKENS}}
    )
    heard = 0
    while heard < after_chunks:
        name, message = await conversation.next()
        if name == "turn_end":
            return Interruption(heard_chunks=heard, finish_reason=message.finish_reason)
        _check(name, message)
        heard += name == "chunk"
    asked_s, late = clock(), 0
    await conversation.send(interrupt={})

    def count_late(name: str, message: Any) -> None:
        nonlocal late
        late += name == "chunk"

    end = await _until(conversation, "turn_end", count_late)
    stopped_ms = (clock() - asked_s) * 1e3
    next_asked_s, next_ms = clock(), None
    await conversation.send(
        turn={"turn_id": "next", "text": _NEXT_QUESTION, "params": {"max_tokens": _SHORT_REPLY_TOKENS}}
    )

    def note_first(name: str, message: Any) -> None:
        nonlocal next_ms
        if name == "chunk" and next_ms is None:
            next_ms = (clock() - next_asked_s) * 1e3

    next_end = await _until(conversation, "turn_end", note_first)
    await conversation.send(end={"reason": "tested"})
    await _until(conversation, "ended", lambda name, _: None)
    return Interruption(
        heard_chunks=heard,
        late_chunks=late,
        finish_reason=end.finish_reason,
        stopped_ms=stopped_ms,
        next_finish_reason=next_end.finish_reason,
        next_first_chunk_ms=next_ms,
    )


async def _until(conversation: Conversation, wanted: str, on_other: Callable[[str, Any], None]) -> Any:
    while True:
        name, message = await conversation.next()
        if name == wanted:
            return message
        _check(name, message)
        on_other(name, message)


def _check(name: str, message: Any) -> None:
    if name == "error":
        raise EngineError(f"the server says {message.code}: {message.message}")
