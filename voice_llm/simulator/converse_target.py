"""ConverseTarget: calls over a server's ``voice_llm.v1.CallService/Converse``, one gRPC stream each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from .._proto import call_pb2 as pb
from .._proto import call_pb2_grpc
from ..errors import InvalidRequestError
from ..events import Timings
from ..remote.errors import error_of_status
from .script import CallScript
from .session_call import Event, SessionCall, check_params
from .targets import TargetCall

__all__ = ["ConverseTarget"]


class ConverseTarget:
    """A server that carries phone calls over gRPC. An asynchronous context manager, as it keeps a connection open.

    How a call goes is said in ``SessionCall``.

    Args:
        endpoint: ``host:port``.
        params: Fields of each turn's ``Params``, such as ``temperature``.
        tenant: Sent as ``x-tenant-id``.
        api_key: Shown to the server.
        credentials: Of an encrypted connection; None for a plain one.
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
        api_key: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        on_turn_end: Callable[[Timings], None] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self._params = check_params(params or {})
        try:
            ParseDict(self._params, pb.Params())
        except ParseError as error:
            raise InvalidRequestError(f"params: {error}", param="params") from None
        self._on_turn_end = on_turn_end
        self._timeout_s = timeout_s
        self._endpoint = endpoint
        key = () if api_key is None else (("authorization", f"Bearer {api_key}"),)
        self._metadata = (("x-tenant-id", tenant), *key)
        self._credentials = credentials
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
            self._channel = self._connect()
        stub = call_pb2_grpc.CallServiceStub(self._channel)  # type: ignore[no-untyped-call]
        return SessionCall(
            _GrpcWire(lambda events: stub.Converse(events, metadata=self._metadata)),
            script,
            call_id,
            params=self._params,
            on_turn_end=self._on_turn_end,
            timeout_s=self._timeout_s,
        )

    def _connect(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._endpoint)
        return grpc.aio.secure_channel(self._endpoint, self._credentials)

    async def close(self) -> None:
        """Close the connection; idempotent."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


class _GrpcWire:
    def __init__(self, converse: Callable[[AsyncIterator[pb.ClientEvent]], Any]) -> None:
        # A queue, so that events leave in order and a hint that is given up cancels no write under way.
        self._outgoing: asyncio.Queue[pb.ClientEvent | None] = asyncio.Queue()
        self._stream = converse(self._sent())

    def send(self, event: Event) -> None:
        fields = {name: value for name, value in event.items() if name != "type"}
        self._outgoing.put_nowait(ParseDict({event["type"]: fields}, pb.ClientEvent()))
        if event["type"] == "end":
            self._outgoing.put_nowait(None)

    async def events(self) -> AsyncIterator[Event]:
        try:
            async for message in self._stream:
                kind = message.WhichOneof("event")
                if kind is not None:
                    yield {"type": kind} | _plain(getattr(message, kind))
        except grpc.aio.AioRpcError as error:
            raise error_of_status(error) from None

    async def close(self) -> None:
        self._outgoing.put_nowait(None)
        self._stream.cancel()

    async def _sent(self) -> AsyncIterator[pb.ClientEvent]:
        while (event := await self._outgoing.get()) is not None:
            yield event


def _plain(message: Message) -> dict[str, Any]:
    # Without the fields that have no presence, a time of 0 ms would read as one that is not known.
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
