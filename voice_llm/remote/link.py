"""CallLink: the stream that holds one call of a server."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Final

import grpc

from .._proto import engine_pb2 as pb
from ..engine import Failed
from ..errors import EngineDeadError, EngineError, VoiceLLMError, WrongStateError
from ..events import Finished, FinishReason, Prefilled
from .codec import event_of
from .errors import error_of_rpc

__all__ = ["CallLink", "Sink"]

logger = logging.getLogger(__name__)

Sink = Callable[[Any], None]

# How long the server may take over the last words of a call that was closed.
_LAST_WORDS_S: Final = 5.0


class CallLink:
    """Sends a call's commands in their order, and hands each request's events to its sink, on the event loop.

    It may be closed, and its requests cancelled, from any thread, as a garbage collector does.

    Args:
        stub: Of the server's EngineService; what is generated for it has no types.
        metadata: Says who is asking.
        endpoint: The server, for error messages.
    """

    def __init__(self, stub: Any, metadata: grpc.aio.Metadata, endpoint: str) -> None:
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._outbox: asyncio.Queue[pb.CallCommand | None] = asyncio.Queue()
        self._sinks: dict[int, Sink] = {}
        self._ids = itertools.count(1)
        self._closed = False
        self._error: VoiceLLMError | None = None
        self._hurry: asyncio.TimerHandle | None = None
        self._reader: asyncio.Task[None] | None = None
        self._rpc = stub.HoldCall(self._commands(), metadata=metadata)

    async def open(self, opening: pb.Open, timeout_s: float) -> tuple[pb.Opened, asyncio.Task[None]]:
        """Have the call opened; returns what the server says of it, and the task that reads, to be kept by the caller.

        Raises:
            VoiceLLMError: As ``Engine.open_call``.
        """
        self._outbox.put_nowait(pb.CallCommand(open=opening))
        try:
            async with asyncio.timeout(timeout_s):
                first = await self._read_one()
            if first is None or not first.HasField("opened"):
                raise EngineDeadError(f"{self._endpoint} has ended the call at once")
        except BaseException as e:
            self._rpc.cancel()
            if isinstance(e, TimeoutError):
                raise EngineDeadError(f"{self._endpoint} has not opened the call in {timeout_s:.0f} s") from None
            raise
        self._reader = self._loop.create_task(self._read(), name="voice-llm-remote-call")
        return first.opened, self._reader

    def check(self) -> None:
        """Check that requests can be sent.

        Raises:
            EngineDeadError: The server has gone away.
            WrongStateError: The call is closed.
        """
        if self._error is not None:
            raise self._error
        if self._closed:
            raise WrongStateError("the call is closed")

    def new_id(self) -> int:
        """Return a name for a request."""
        return next(self._ids)

    def submit(self, request_id: int, command: pb.CallCommand, sink: Sink) -> None:
        """Send a request; ``sink`` is given its events."""
        self._sinks[request_id] = sink
        self._outbox.put_nowait(command)

    def cancel(self, request_id: int, reason: FinishReason = FinishReason.CANCELLED) -> None:
        """Cancel a request that has not ended."""
        if request_id in self._sinks:
            command = pb.CallCommand(cancel=pb.Cancel(request_id=request_id, reason=reason))
            self._on_loop(self._outbox.put_nowait, command)

    def forget(self, request_id: int) -> None:
        """Let a request end without anybody being told."""
        self._sinks.pop(request_id, None)

    def close_nowait(self) -> None:
        """End the call; what runs is cancelled, and is told so. Idempotent."""
        if not self._closed:
            self._closed = True
            self._on_loop(self._half_close)

    async def ended(self) -> None:
        """Wait until the server has let go of a closed call."""
        if self._reader is not None:
            await asyncio.wait({self._reader})

    def _half_close(self) -> None:
        self._outbox.put_nowait(None)
        if self._reader is not None and not self._reader.done():
            self._hurry = self._loop.call_later(_LAST_WORDS_S, self._rpc.cancel)

    def _on_loop(self, function: Callable[..., object], *args: Any) -> None:
        # At once where that is possible: what is sent after a cancel must come after it.
        with suppress(RuntimeError):  # the event loop is closed, and the connection with it
            if threading.get_ident() == self._thread_id:
                function(*args)
            else:
                self._loop.call_soon_threadsafe(function, *args)

    async def _commands(self) -> AsyncIterator[pb.CallCommand]:
        while (command := await self._outbox.get()) is not None:
            yield command

    async def _read_one(self) -> pb.CallEvent | None:
        """Return the next event, or None at the end."""
        try:
            event = await self._rpc.read()
        except grpc.aio.AioRpcError as e:
            raise error_of_rpc(e, self._endpoint) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise EngineDeadError("the connection to the engine is closed") from None
        return None if event is grpc.aio.EOF else event

    async def _read(self) -> None:
        error: VoiceLLMError = EngineDeadError(f"{self._endpoint} has ended the call")
        try:
            while (event := await self._read_one()) is not None:
                self._dispatch(event)
        except VoiceLLMError as e:
            error = e
        except Exception as e:
            logger.exception("what %s says cannot be read", self._endpoint)
            error = EngineError(f"what {self._endpoint} says cannot be read: {type(e).__name__}")
        finally:
            self._end(error)

    def _dispatch(self, message: pb.CallEvent) -> None:
        event = event_of(message)
        sink = self._sinks.get(message.request_id)
        if isinstance(event, (Finished, Prefilled, Failed)):
            self._sinks.pop(message.request_id, None)
        if sink is not None and event is not None:
            sink(event)

    def _end(self, error: VoiceLLMError) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
        self._rpc.cancel()  # nobody reads it any more: the server must not keep the call
        if not self._closed:
            self._error = error
        self._outbox.put_nowait(None)
        sinks = list(self._sinks.values())
        self._sinks.clear()
        for sink in sinks:
            sink(Failed(error))
