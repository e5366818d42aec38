"""``voice_llm.v1.CallService``: one bidirectional stream is one phone call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import grpc

from ..._proto import call_pb2 as pb
from ...errors import InvalidRequestError
from ...session import Ready, SessionEvent, TurnEnd
from ...session.contract import ClientEvent
from ..edge import Edge
from ..tracing import Trace
from .convert import client_event, server_event
from .peer import Context, identity_of_stream
from .rpc import Sender, parser, rpc

__all__ = ["CallService"]

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["CallService"].full_name


class CallService:
    """Carries phone calls.

    A client that ends its side of the stream without an ``end`` has dropped the connection, just as one that goes away:
    its call is kept for a while, to be resumed, and this stream ends.

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
            events = self._edge.conversations.converse(_incoming(requests), identity)
            async with Sender(context) as send, aclosing(events):
                async for event in events:
                    _note(trace, event)
                    await send(server_event(event))


async def _incoming(
    requests: AsyncIterator[pb.ClientEvent | InvalidRequestError],
) -> AsyncIterator[ClientEvent | InvalidRequestError]:
    async for request in requests:
        yield client_event(request)


def _note(trace: Trace, event: SessionEvent) -> None:
    if isinstance(event, Ready):
        trace.identify(call_id=event.call_id)
    elif isinstance(event, TurnEnd):
        trace.turn(event.usage, event.timings, event.finish_reason)
