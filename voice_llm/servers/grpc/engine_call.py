"""HeldCall: one call of the engine, as the commands of one stream drive it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

from ..._proto import engine_pb2 as pb
from ...config import SamplingParams, ServerConfig
from ...errors import CallBusyError, InvalidRequestError, WrongStateError
from ...events import Prefilled
from ...runtime import Call, Engine, ReplyStream
from .engine_codec import (
    Age,
    age_of,
    cancel_reason_of,
    error_event,
    event_of,
    messages_of,
    params_of,
    tool_choice_of,
    tools_of,
)

__all__ = ["Command", "HeldCall"]

Command = pb.CallCommand | InvalidRequestError
"""A command, or what is wrong with the bytes that should have been one."""

# A reader this far behind holds up its own replies only: each of them keeps a bounded number of events itself.
_MAX_UNSENT_EVENTS: Final = 256
_MAX_REQUESTS: Final = 64
_LAST_WORDS_S: Final = 5.0


class HeldCall:
    """Obeys the commands of a stream, in their order, and tells of its requests as they go on side by side.

    Args:
        engine: The call's engine.
        call: The call; whoever opened it closes it.
        config: Bounds of a request.
    """

    def __init__(self, engine: Engine, call: Call, config: ServerConfig) -> None:
        self._engine = engine
        self._call = call
        self._config = config
        self._outbox: asyncio.Queue[pb.CallEvent | None] = asyncio.Queue(_MAX_UNSENT_EVENTS)
        self._streams: dict[int, ReplyStream] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def events(self, commands: AsyncIterator[Command]) -> AsyncGenerator[pb.CallEvent, None]:
        """Yield what the requests tell, until the commands end and all requests with them."""
        reading = asyncio.create_task(self._read(commands))
        try:
            while (event := await self._outbox.get()) is not None:
                yield event
            await reading
        finally:
            tasks = [reading, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, commands: AsyncIterator[Command]) -> None:
        try:
            async for command in commands:
                await self._obey(command)
            # What runs is cancelled with the call, and says so before the stream ends.
            self._call.close_nowait()
            if self._tasks:
                await asyncio.wait(self._tasks.values(), timeout=_LAST_WORDS_S)
        except asyncio.CancelledError:
            raise  # nobody takes anything out of the outbox any more: putting something in might wait for ever
        except Exception:
            await self._outbox.put(None)
            raise
        await self._outbox.put(None)

    async def _obey(self, command: Command) -> None:
        if isinstance(command, InvalidRequestError):
            await self._tell_error(0, command)
            return
        kind = command.WhichOneof("command")
        request_id = getattr(command, kind).request_id if kind in ("prefill", "generate", "cancel") else 0
        try:
            if kind in ("prefill", "generate"):
                self._check(request_id)
            if kind == "prefill":
                self._begin(request_id, await self._prefill(command.prefill))
                # Its first step submits it: what comes next must come after it in the engine, too.
                await asyncio.sleep(0)
            elif kind == "generate":
                age = age_of(command.generate.age_s)
                stream = self._streams[request_id] = await self._generate(command.generate, age)
                self._begin(request_id, self._forward(request_id, stream, age))
            elif kind == "cancel":
                self._cancel(request_id, command.cancel.reason)
            elif kind == "open":
                raise WrongStateError("the call is open already")
            else:
                raise InvalidRequestError("the command is empty or unknown", param="command")
        except Exception as e:
            await self._tell_error(request_id, e)

    def _check(self, request_id: int) -> None:
        if request_id <= 0 or request_id in self._tasks:
            raise InvalidRequestError(f"request_id {request_id} is in use or not positive", param="request_id")
        if len(self._tasks) >= _MAX_REQUESTS:
            raise CallBusyError(f"the call has {_MAX_REQUESTS} requests under way, as many as it may")

    def _begin(self, request_id: int, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[request_id] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._forget(request_id))

    def _forget(self, request_id: int) -> None:
        self._tasks.pop(request_id, None)
        self._streams.pop(request_id, None)

    def _cancel(self, request_id: int, reason: str) -> None:
        """Cancel a request; one that has ended meanwhile needs no cancel."""
        settled = cancel_reason_of(reason)
        if (stream := self._streams.get(request_id)) is not None:
            stream.cancel(settled)
        elif (task := self._tasks.get(request_id)) is not None:
            task.cancel()

    async def _prefill(self, command: pb.Prefill) -> Coroutine[Any, Any, None]:
        """Read a prefill; returns the work that it is."""
        age = age_of(command.age_s)
        arrival_s = self._engine.clock() - age.believed_s
        prefill = partial(
            self._call.prefill,
            await messages_of(command.prompt, max_messages=self._config.max_messages),
            rag_context=_rag_context(command.prompt),
            tools=await tools_of(command.prompt),
            open_ended=command.open_ended,
            arrival_s=arrival_s,
        )
        return self._await_prefill(command.request_id, prefill, age)

    async def _await_prefill(self, request_id: int, prefill: Callable[[], Awaitable[Prefilled]], age: Age) -> None:
        try:
            event = event_of(request_id, await prefill(), age)
        except Exception as e:
            await self._tell_error(request_id, e)
        else:
            await self._outbox.put(event)

    async def _generate(self, command: pb.Generate, age: Age) -> ReplyStream:
        arrival_s = self._engine.clock() - age.believed_s
        return self._call.generate(
            await messages_of(command.prompt, max_messages=self._config.max_messages),
            await self._params(command.params),
            rag_context=_rag_context(command.prompt),
            tools=await tools_of(command.prompt),
            tool_choice=await tool_choice_of(command.tool_choice),
            language=command.language or None,
            arrival_s=arrival_s,
        )

    async def _forward(self, request_id: int, stream: ReplyStream, age: Age) -> None:
        try:
            async for event in stream:
                await self._outbox.put(event_of(request_id, event, age))
        except Exception as e:
            await self._tell_error(request_id, e)

    async def _tell_error(self, request_id: int, error: Exception) -> None:
        """Say why a request failed; where even that cannot be written, that it failed."""
        try:
            event = error_event(request_id, error)
        except Exception as e:
            event = error_event(request_id, e)
        await self._outbox.put(event)

    async def _params(self, text: str) -> SamplingParams:
        params, most = await params_of(text, self._engine.profile.sampling), self._config.max_reply_tokens
        if params.max_tokens > most:
            raise InvalidRequestError(f"max_tokens is {params.max_tokens}, more than {most}", param="max_tokens")
        return params


def _rag_context(prompt: pb.Prompt) -> str | None:
    return prompt.rag_context if prompt.HasField("rag_context") else None
