"""EngineService: the engine's own face over gRPC, for ``RemoteEngine``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from pathlib import PurePath
from typing import Any, Final

import grpc

from ..._proto import engine_pb2 as pb
from ...config import Profile
from ...errors import AtCapacityError, DrainingError, InvalidRequestError, LoadingError
from ...runtime import Call, Engine
from ...session.contract import check_id
from ..edge import Edge
from ..identity import Identity
from .engine_call import Command, HeldCall
from .peer import Context, identity_of, identity_of_stream
from .rpc import Sender, parser, rpc

__all__ = ["EngineService", "add_to"]

_OPEN_WITHIN_S: Final = 10.0


def add_to(server: grpc.aio.Server, edge: Edge) -> None:
    """Serve the engine's own face on a gRPC server."""
    service = EngineService(edge)
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Describe": grpc.unary_unary_rpc_method_handler(
            service.describe,
            request_deserializer=parser(pb.DescribeRequest),
            response_serializer=pb.DescribeResponse.SerializeToString,
        ),
        "HoldCall": grpc.stream_stream_rpc_method_handler(
            service.hold_call,
            request_deserializer=parser(pb.CallCommand),
            response_serializer=pb.CallEvent.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, methods),))


class EngineService:
    """Lends calls to programs elsewhere: pinned ones, each for as long as its stream lives.

    Args:
        edge: What all servers share.
    """

    name: Final = pb.DESCRIPTOR.services_by_name["EngineService"].full_name

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def describe(
        self, request: pb.DescribeRequest | InvalidRequestError, context: Context
    ) -> pb.DescribeResponse | None:
        """Say what runs here; every error becomes the RPC's status."""
        async with rpc(self._edge, context, "Describe") as trace:
            trace.identify(tenant=identity_of(context, self._edge.authenticator).tenant)
            if isinstance(request, InvalidRequestError):
                raise request
            engine = self._edge.host.require()
            health = engine.health()
            return pb.DescribeResponse(
                profile=_public(engine.profile).model_dump_json(),
                healthy=health.healthy,
                open_calls=health.open_calls,
                max_calls=health.max_calls,
                max_command_bytes=self._edge.config.max_request_bytes,
            )
        return None

    async def hold_call(self, commands: AsyncIterator[Command], context: Context) -> None:
        """Hold one call for as long as commands can come; an error before it is open becomes the RPC's status."""
        async with rpc(self._edge, context, "HoldCall") as trace:
            identity = await identity_of_stream(context, self._edge.authenticator, commands)
            trace.identify(tenant=identity.tenant)
            opening = await _opening(commands)
            async with Sender(context) as send, self._opened(identity, opening) as (engine, call):
                trace.identify(call_id=call.call_id)
                await send(pb.CallEvent(opened=pb.Opened(call_id=call.call_id, tenant=call.tenant)))
                async with aclosing(HeldCall(engine, call, self._edge.config).events(commands)) as events:
                    async for event in events:
                        await send(event)

    @asynccontextmanager
    async def _opened(self, identity: Identity, opening: pb.Open) -> AsyncIterator[tuple[Engine, Call]]:
        with ExitStack() as admission:
            try:
                engine = admission.enter_context(self._edge.host.admit(identity.tenant))
                call = await engine.open_call(
                    call_id=opening.call_id or None,
                    tenant=identity.tenant,
                    language=opening.language or None,
                    one_shot=opening.one_shot,
                )
            except (AtCapacityError, DrainingError, LoadingError) as refusal:
                self._edge.host.observer.call_refused(refusal.code)
                raise
            async with call:
                yield engine, call


async def _opening(commands: AsyncIterator[Command]) -> pb.Open:
    try:
        async with asyncio.timeout(_OPEN_WITHIN_S):
            command = await anext(aiter(commands), None)
    except TimeoutError:
        raise InvalidRequestError(f"no open arrived within {_OPEN_WITHIN_S:g} s", param="open") from None
    if isinstance(command, InvalidRequestError):
        raise command
    if command is None or not command.HasField("open"):
        raise InvalidRequestError("the first command must be open", param="open")
    opening: pb.Open = command.open
    if opening.call_id:
        check_id(opening.call_id, "call_id")
    return opening


def _public(profile: Profile) -> Profile:
    """Leave out where on this machine the model lies."""
    if profile.model.path is None:
        return profile
    model = profile.model.model_copy(update={"path": PurePath(profile.model.path).name})
    return profile.model_copy(update={"model": model})
