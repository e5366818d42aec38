"""``voice_llm.v1.CallService``: one bidirectional stream is one phone call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Final

import grpc

from ..._proto import call_pb2 as pb
from ...errors import InvalidRequestError
from ...session import CallError, CallToolCall, Ready, SessionEvent, TurnEnd
from ...session.contract import ClientEvent, Start, Turn
from ..edge import Edge
from ..tracing import Trace
from .convert import client_event, server_event
from .off_loop import converted
from .peer import Context, identity_of_stream
from .rpc import Sender, parser, rpc

__all__ = ["CallService"]

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["CallService"].full_name


class CallService:
    """Carries phone calls.

    A client that ends its side of the stream without an ``end`` hears the answer that it waits for. Then the connection
    counts as dropped, just as that of one that goes away: the call is kept for a while, to be resumed.

    Args:
        edge: What all servers share.
    """

    name: Final = _SERVICE

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""
        method = grpc.stream_stream_rpc_method_handler(
            self.converse,
            request_deserializer=parser(pb.ClientEvent),
            response_serializer=pb.ServerEvent.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.name, {"Converse": method}),))

    async def converse(self, requests: AsyncIterator[pb.ClientEvent | InvalidRequestError], context: Context) -> None:
        """Carry one call; what is fatal becomes the RPC's status."""
        async with rpc(self._edge, context, "Converse") as trace:
            identity = await identity_of_stream(context, self._edge.authenticator, requests)
            trace.identify(tenant=identity.tenant)
            owed = _Owed()
            incoming = _incoming(requests, self._edge.config.max_messages, owed)
            events = self._edge.conversations.converse(incoming, identity)
            async with Sender(context) as send, aclosing(events):
                async for event in events:
                    _note(trace, event)
                    await send(server_event(event))
                    owed.told(event)


class _Owed:
    """What a client that has said all it had to say still waits for."""

    def __init__(self) -> None:
        self._answers = 0
        self._none = asyncio.Event()
        self._none.set()

    def heard(self, event: ClientEvent | InvalidRequestError) -> None:
        """Note an event of the client: a start and a turn are answered, a speculation perhaps never."""
        if isinstance(event, Start) or (isinstance(event, Turn) and not event.speculative):
            self._set(self._answers + 1)

    def told(self, event: SessionEvent) -> None:
        """Note an event that the client was told. A tool's result cannot come any more."""
        if isinstance(event, CallToolCall):
            self._set(0)
        elif isinstance(event, (Ready, TurnEnd)) or (isinstance(event, CallError) and event.turn_id is None):
            self._set(self._answers - 1)

    async def paid(self) -> None:
        """Wait until nothing is owed."""
        await self._none.wait()

    def _set(self, answers: int) -> None:
        self._answers = max(0, answers)
        if self._answers:
            self._none.clear()
        else:
            self._none.set()


async def _incoming(
    requests: AsyncIterator[pb.ClientEvent | InvalidRequestError], max_messages: int, owed: _Owed
) -> AsyncIterator[ClientEvent | InvalidRequestError]:
    async for request in requests:
        event: ClientEvent | InvalidRequestError
        if isinstance(request, InvalidRequestError):
            event = request
        else:
            event = await converted(request, partial(client_event, request, max_messages=max_messages))
        owed.heard(event)
        yield event
    await owed.paid()


def _note(trace: Trace, event: SessionEvent) -> None:
    if isinstance(event, Ready):
        trace.identify(call_id=event.call_id)
    elif isinstance(event, TurnEnd):
        trace.turn(event.usage, event.timings, event.finish_reason)
