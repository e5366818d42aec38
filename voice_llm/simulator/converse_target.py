"""ConverseTarget: calls over a server's ``voice_llm.v1.CallService/Converse``, one gRPC stream each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from .._proto import call_pb2 as pb
from .._proto import call_pb2_grpc
from ..errors import InvalidRequestError, VoiceLLMError
from ..events import Timings, Usage
from ..remote.errors import error_of_status
from .script import CallScript
from .targets import ChatMessages, TargetCall, TargetError

__all__ = ["ConverseTarget"]

_HANG_UP_S: Final = 10.0


class ConverseTarget:
    """A server that carries phone calls over gRPC. An asynchronous context manager, as it keeps a connection open.

    A call sends its system prompt and RAG context when it opens, so that they can be computed while the caller speaks;
    hints go out as ``partial`` events, and the server keeps the history. Nothing waits for ``ready`` but a turn, whose
    time counts it.

    Args:
        endpoint: ``host:port``.
        params: Fields of each turn's ``Params``, such as ``temperature``.
        tenant: Sent as ``x-tenant-id``.
        on_turn_end: Called with the server's own timings of each turn.
        timeout_s: Longest silence of the server while it is waited for.

    Raises:
        InvalidRequestError: ``params`` has an unknown field, a value of a wrong type, or one that the target sets.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        params: Mapping[str, Any] | None = None,
        tenant: str = "default",
        on_turn_end: Callable[[Timings], None] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self.params = _params(params or {})
        self.on_turn_end = on_turn_end
        self.timeout_s = timeout_s
        self._endpoint = endpoint
        self._metadata = (("x-tenant-id", tenant),)
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self, script: CallScript, call_id: str) -> TargetCall:
        """See ``Target``; what the server has against the call shows in its first turn."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._endpoint)
        stub = call_pb2_grpc.CallServiceStub(self._channel)  # type: ignore[no-untyped-call]
        call = _ConverseCall(self, lambda events: stub.Converse(events, metadata=self._metadata))
        call.send(
            start=pb.Start(
                call_id=call_id,
                system_prompt=script.system_prompt,
                rag_context=script.rag_context or "",
                params=self.params,
            )
        )
        return call

    async def close(self) -> None:
        """Close the connection; idempotent."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


class _ConverseCall:
    def __init__(self, target: ConverseTarget, converse: Callable[[AsyncIterator[pb.ClientEvent]], Any]) -> None:
        self._target = target
        # A queue, so that events leave in order and a hint that is given up cancels no write under way.
        self._outgoing: asyncio.Queue[pb.ClientEvent | None] = asyncio.Queue()
        self._incoming: asyncio.Queue[pb.ServerEvent | VoiceLLMError] = asyncio.Queue()
        self._ready = asyncio.Event()
        self._turns = 0
        self._stream = converse(self._sent())
        self._reading = asyncio.create_task(self._read())
        self.usage: Usage | None = None

    def send(self, **event: Any) -> None:
        self._outgoing.put_nowait(pb.ClientEvent(**event))

    async def prefill(self, messages: ChatMessages) -> None:
        """Tell the words of the turn so far. Before the call is ready, a server cannot take them: they are left out."""
        said = messages[-1]["content"]
        if said and self._ready.is_set() and not self._reading.done():
            self.send(partial=pb.Partial(text=said))

    async def turn(self, messages: ChatMessages, max_tokens: int | None) -> AsyncGenerator[str, None]:
        self.usage = None
        self._turns += 1
        turn_id = f"turn-{self._turns}"
        params = pb.Params()
        params.CopyFrom(self._target.params)
        if max_tokens is not None:
            params.max_tokens = max_tokens
        await self._wait_ready()
        self.send(turn=pb.Turn(turn_id=turn_id, text=messages[-1]["content"], params=params))
        ended = False
        try:
            while not ended:
                event = await self._next()
                ended = event.HasField("turn_end") and event.turn_end.turn_id == turn_id
                if ended:
                    self._end_turn(event.turn_end)
                elif event.HasField("error"):
                    raise TargetError(f"the server failed: {event.error.code}: {event.error.message}")
                elif event.chunk.turn_id == turn_id:
                    yield event.chunk.text
        finally:
            if not ended and not self._reading.done():
                self.send(interrupt=pb.Interrupt())

    async def close(self) -> None:
        self.send(end=pb.End(reason="hangup"))
        self._outgoing.put_nowait(None)
        try:
            # Once the server has told that the call is over, its place is free for the next one.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HANG_UP_S):
                    await asyncio.shield(self._reading)
        finally:
            self._stream.cancel()
            self._reading.cancel()

    def _end_turn(self, end: pb.TurnEnd) -> None:
        self.usage = Usage(end.usage.prompt_tokens, end.usage.cached_tokens, end.usage.completion_tokens)
        if self._target.on_turn_end is not None:
            times = end.timings
            self._target.on_turn_end(
                Timings(times.queue_ms, times.prefill_ms, times.first_token_ms, times.first_chunk_ms, times.total_ms)
            )
        if end.finish_reason in ("error", "cancelled", "interrupted"):
            raise TargetError(f"the reply was {end.finish_reason}")

    async def _wait_ready(self) -> None:
        async with _patience(self._target.timeout_s):
            await self._ready.wait()

    async def _next(self) -> pb.ServerEvent:
        async with _patience(self._target.timeout_s):
            event = await self._incoming.get()
        if isinstance(event, VoiceLLMError):
            raise event
        return event

    async def _sent(self) -> AsyncIterator[pb.ClientEvent]:
        while (event := await self._outgoing.get()) is not None:
            yield event

    async def _read(self) -> None:
        failure: VoiceLLMError = TargetError("the server ended the call")
        try:
            async for event in self._stream:
                if event.HasField("ready"):
                    self._ready.set()
                else:
                    self._incoming.put_nowait(event)
        except grpc.aio.AioRpcError as error:
            failure = error_of_status(error)
        self._incoming.put_nowait(failure)
        self._ready.set()  # whoever waits for it hears of the failure


@contextlib.asynccontextmanager
async def _patience(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise TargetError(f"the server was silent for {timeout_s:g} s") from None


def _params(fields: Mapping[str, Any]) -> pb.Params:
    if "max_tokens" in fields:
        raise InvalidRequestError("max_tokens is the target's own to set", param="max_tokens")
    try:
        return pb.Params(**fields)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"params: {error}", param="params") from None
