"""``POST /v1/chat/completions``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final
from uuid import uuid4

from aiohttp import web

from ...errors import AtCapacityError, DrainingError, LoadingError, SlowConsumerError, WrongStateError
from ...events import Finished, FinishReason, GenerateEvent, SentenceChunk
from ...runtime import Engine, ReplyStream
from ..edge import Edge
from ..host import EngineHost
from ..soft_calls import ChatHistory
from ..status import reply_to
from .body import BODY_S, read_object
from .models import model_names
from .reply import Completion, sse, to_json
from .request import ChatRequest, parse_chat_request
from .request_keys import ERROR_CODE, IDENTITY, TRACE, call_id_of

__all__ = ["UNREAD_S", "Chat"]

_DONE: Final = b"data: [DONE]\n\n"
UNREAD_S: Final = 30.0
"""How long a client may leave a stream unread that has filled its buffers, in seconds."""
_STREAM_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # a proxy that waits for more of a stream would hold back what is to be spoken
}


class Chat:
    """Answers chat completions.

    Args:
        edge: What all servers share.
        body_s: How long a body may take to arrive.
        unread_s: How long a client may leave a stream unread that has filled its buffers.
    """

    def __init__(self, edge: Edge, *, body_s: float = BODY_S, unread_s: float = UNREAD_S) -> None:
        self._edge = edge
        self._body_s = body_s
        self._unread_s = unread_s

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer one request. Nothing of the engine is held before the whole body is there and found right.

        Raises:
            VoiceLLMError: It cannot be answered; none once a stream has begun.
        """
        try:
            return await self._complete(request)
        except (AtCapacityError, LoadingError, DrainingError) as refused:
            self._edge.host.observer.call_refused(refused.code)
            raise

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        config, call_id = self._edge.config, call_id_of(request)
        request[TRACE].identify(call_id=call_id or "")
        with self._edge.host.admit(request[IDENTITY].tenant) as engine:
            pass  # where the answer is no in any case, it is given before the body, which may take its time
        body = await read_object(request, max_bytes=config.max_request_bytes, within_s=self._body_s)
        arrival_s = engine.clock()
        chat = parse_chat_request(body, profile=engine.profile, model_names=model_names(engine), config=config)
        told = ChatHistory(chat.messages, chat.rag_context)
        async with self._edge.soft_calls.use(request[IDENTITY], call_id, told) as (engine, call):
            stream = call.generate(
                chat.messages,
                # Clients cut the text into sentences themselves; a reply that is sent whole is not heard meanwhile.
                chat.params.replace(first_chunk="sentence", pacing=None if chat.stream else "off"),
                rag_context=chat.rag_context,
                tools=chat.tools,
                tool_choice=chat.tool_choice,
                arrival_s=arrival_s,
            )
            async with aclosing(stream):
                answer = self._stream if chat.stream else self._whole
                return await answer(request, _completion(chat, engine), stream)

    async def _whole(self, request: web.Request, completion: Completion, stream: ReplyStream) -> web.StreamResponse:
        events = [event async for event in _told(request, stream, self._edge.host)]
        return web.Response(text=to_json(completion.whole(events)), content_type="application/json")

    async def _stream(self, request: web.Request, completion: Completion, stream: ReplyStream) -> web.StreamResponse:
        async with aclosing(_told(request, stream, self._edge.host)) as events:
            first = await anext(events)  # what is wrong with the request shows here, while there is a status to send
            response = web.StreamResponse(headers=_STREAM_HEADERS)
            await response.prepare(request)
            try:
                await self._write(response, _written(completion, first))
                async for event in events:
                    await self._write(response, _written(completion, event))
                await self._write(response, _DONE)
            except ConnectionError:
                raise
            except Exception as error:
                await self._break_off(request, response, error)
        return response

    async def _break_off(self, request: web.Request, response: web.StreamResponse, error: Exception) -> None:
        """End a stream that has begun: the status is sent, so the error comes as an event, and no ``[DONE]``."""
        reply = reply_to(error)
        request[ERROR_CODE] = reply.code
        try:
            if isinstance(error, SlowConsumerError):
                raise error  # whoever does not read would not read this either
            await self._write(response, sse(reply.as_json()))
        except SlowConsumerError:
            if request.transport is not None:
                request.transport.abort()

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        if not data:
            return
        try:
            async with asyncio.timeout(self._unread_s):
                await response.write(data)
        except TimeoutError:
            raise SlowConsumerError(f"a reply was not read for {self._unread_s:g} s; it was cancelled") from None


async def _told(request: web.Request, stream: ReplyStream, host: EngineHost) -> AsyncGenerator[GenerateEvent]:
    """Yield what OpenAI has words for, and tell the trace of the end."""
    async for event in stream:
        if isinstance(event, Finished):
            request[TRACE].turn(event.usage, event.timings, event.reason)
            if event.reason in (FinishReason.CANCELLED, FinishReason.INTERRUPTED, FinishReason.ERROR):
                host.check_not_draining()
                raise WrongStateError("the call was ended while it replied")
        if not isinstance(event, SentenceChunk):
            yield event


def _written(completion: Completion, event: GenerateEvent) -> bytes:
    return b"".join(sse(piece) for piece in completion.pieces(event))


def _completion(chat: ChatRequest, engine: Engine) -> Completion:
    return Completion(
        f"chatcmpl-{uuid4().hex}",
        int(time.time()),
        engine.profile.name,
        one_tool_call=chat.one_tool_call,
        include_usage=chat.include_usage,
    )
