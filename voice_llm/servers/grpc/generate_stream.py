"""``sentiric.llm.v1.LlamaService``: the contract that voice gateways in the field already speak."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Final

import grpc

from ..._proto import llama_pb2 as pb
from ...errors import AtCapacityError, DrainingError, InvalidRequestError, LoadingError, VoiceLLMError
from ...events import Finished, FinishReason, TextDelta
from ...prompt import Message
from ...runtime import Call, Engine, ReplyStream
from ...session.contract import check_id
from ..auth import TENANT_HEADER
from ..edge import Edge
from ..identity import Identity
from ..tracing import Trace
from .off_loop import converted
from .peer import Context, identity_of, metadata_of
from .question import check, history_of, params_of, system_prompt_of, user_turn_of
from .rpc import Sender, parser, rpc
from .told import Exchange, ToldTurns

__all__ = ["LlamaService"]

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["LlamaService"].full_name
_CALL_ID: Final = "x-call-id"


class LlamaService:
    """Answers one question an RPC; ``x-call-id`` ties those of one phone call to one sequence.

    Args:
        edge: What all servers share.
    """

    name: Final = _SERVICE

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._told = ToldTurns()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it."""
        method = grpc.unary_stream_rpc_method_handler(
            self.generate_stream,
            request_deserializer=parser(pb.GenerateStreamRequest),
            response_serializer=pb.GenerateStreamResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.name, {"GenerateStream": method}),))

    async def generate_stream(self, request: pb.GenerateStreamRequest | InvalidRequestError, context: Context) -> None:
        """Answer one question; every error becomes the RPC's status."""
        async with rpc(self._edge, context, "GenerateStream") as trace:
            engine = self._edge.host.engine
            arrival_s = engine.clock() if engine is not None else None
            identity, call_id = self._asking(context, trace)
            if isinstance(request, InvalidRequestError):
                raise request
            config = self._edge.config
            check(request, max_messages=config.max_messages, max_reply_tokens=config.max_reply_tokens)
            try:
                async with self._edge.soft_calls.use(identity, call_id) as (engine, call):
                    await self._answer(engine, call, request, context, trace, arrival_s)
            except (AtCapacityError, DrainingError, LoadingError) as refusal:
                self._edge.host.observer.call_refused(refusal.code)
                raise

    def _asking(self, context: Context, trace: Trace) -> tuple[Identity, str | None]:
        metadata = metadata_of(context)
        identity = identity_of(context, self._edge.authenticator)
        if not metadata.get(TENANT_HEADER):
            raise InvalidRequestError(f"{TENANT_HEADER} is missing in the metadata", param=TENANT_HEADER)
        call_id = metadata.get(_CALL_ID) or None
        if call_id is not None:
            check_id(call_id, _CALL_ID)
        trace.identify(tenant=identity.tenant, call_id=call_id or "")
        return identity, call_id

    async def _answer(
        self,
        engine: Engine,
        call: Call,
        request: pb.GenerateStreamRequest,
        context: Context,
        trace: Trace,
        arrival_s: float | None,
    ) -> None:
        params = await converted(request, partial(params_of, request, engine.profile.sampling))
        exchange = Exchange(request.user_prompt.strip(), user_turn_of(request, engine.profile))
        system_prompt = system_prompt_of(request, engine.profile)
        messages = [Message("system", system_prompt)] if system_prompt else []
        messages += [*self._told.recall(call, history_of(request)), Message("user", exchange.told)]
        self._told.note(call, exchange)
        try:
            # The gateway gets text, and cuts it into sentences itself.
            stream = call.generate(messages, params, first_chunk="sentence", arrival_s=arrival_s)
            async with aclosing(stream) as reply, Sender(context) as send:
                await self._forward(reply, exchange, send, trace)
        except VoiceLLMError:
            if not exchange.replied:
                self._told.forget(call, exchange)
            raise
        finally:
            self._told.count(call, exchange)

    async def _forward(self, reply: ReplyStream, exchange: Exchange, send: Sender, trace: Trace) -> None:
        async for event in reply:
            if isinstance(event, TextDelta):
                exchange.say(event.text)
                await send(pb.GenerateStreamResponse(token=event.text.encode()))
            elif isinstance(event, Finished):
                if event.reason is FinishReason.CANCELLED:
                    self._edge.host.check_not_draining()
                trace.turn(event.usage, event.timings, event.reason)
                details = pb.FinishDetails(
                    finish_reason=event.reason.value,
                    prompt_tokens=event.usage.prompt_tokens,
                    completion_tokens=event.usage.completion_tokens,
                )
                await send(pb.GenerateStreamResponse(finish_details=details))
