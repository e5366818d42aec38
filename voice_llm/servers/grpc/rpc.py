"""What every RPC goes through: its place in a trace, the status of its errors, its end, and how it is written to."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Self, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from ...errors import InvalidRequestError, SlowConsumerError
from ..edge import Edge
from ..status import ErrorReply, reply_to
from ..tracing import Trace, entered
from .peer import Context, metadata_of

__all__ = ["Sender", "parser", "rpc"]

logger = logging.getLogger(__name__)
_M = TypeVar("_M", bound=Message)

# A reader that takes nothing for so long is gone or means harm. Until then flow control bounds what waits for it.
_WRITE_PATIENCE_S: Final = 30.0
_STATUS_PATIENCE_S: Final = 1.0
# A status travels in a header, where little fits.
_MAX_MESSAGE_CHARS: Final = 500


@asynccontextmanager
async def rpc(edge: Edge, context: Context, name: str) -> AsyncIterator[Trace]:
    """Answer one RPC inside of this: whatever is raised becomes its status, and the observer is told of its end.

    Args:
        edge: Whose observer is told.
        context: The RPC's.
        name: Of the method, for spans.

    Yields:
        The RPC's place in a trace, to be told who is asking.
    """
    started_s = time.monotonic()
    code = "ok"
    with entered(metadata_of(context), name=f"grpc {name}") as trace:
        trailers = tuple(trace.headers().items())
        context.set_trailing_metadata(trailers)
        try:
            yield trace
        except asyncio.CancelledError:
            code = "cancelled"
            raise
        except Exception as error:
            if context.cancelled():
                code = "cancelled"
                raise asyncio.CancelledError from error
            reply = reply_to(error)
            code = reply.code
            trace.failed(code)
            await _abort(context, reply, trailers)
        finally:
            took_s = time.monotonic() - started_s
            edge.host.observer.request_ended("grpc", code, took_s)
            logger.info("%s: %s, in %.1f ms", name, code, took_s * 1e3)


class Sender:
    """Writes messages as soon as the reader has room for them; used as an asynchronous context manager.

    One timer watches all writes, since most of them have room at once and there are many.

    Raises (when left):
        SlowConsumerError: The reader has had no room for too long.

    Args:
        context: The RPC's.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._writing_since_s: float | None = None
        self._given_up = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._timer = self._loop.call_later(_WRITE_PATIENCE_S, self._look)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._given_up and self._task is not None and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise SlowConsumerError(f"the reply was not read for {_WRITE_PATIENCE_S:.0f} s") from None

    async def __call__(self, message: Message) -> None:
        """Write a message."""
        self._writing_since_s = self._loop.time()
        await self._context.write(message)
        self._writing_since_s = None

    def _look(self) -> None:
        now_s = self._loop.time()
        since_s = now_s if self._writing_since_s is None else self._writing_since_s
        if now_s - since_s < _WRITE_PATIENCE_S:
            self._timer = self._loop.call_at(since_s + _WRITE_PATIENCE_S, self._look)
        elif self._task is not None:
            self._given_up = True
            self._task.cancel()


def parser(kind: type[_M]) -> Callable[[bytes], _M | InvalidRequestError]:
    """Return what reads messages of a kind, and makes a value of what is wrong with bytes that are none."""

    def parse(data: bytes) -> _M | InvalidRequestError:
        try:
            return kind.FromString(data)
        except DecodeError:
            return InvalidRequestError(f"the message is not a {kind.DESCRIPTOR.full_name}, or its text is not UTF-8")

    return parse


async def _abort(context: Context, reply: ErrorReply, trailers: tuple[tuple[str, str], ...]) -> None:
    """End the RPC with an error's status; one whose reader takes nothing, not even that, is dropped."""
    trailers += (("error-code", reply.code),)
    if reply.retry_after_s is not None:
        trailers += (("retry-after-ms", str(math.ceil(reply.retry_after_s * 1e3))),)
    try:
        async with asyncio.timeout(_STATUS_PATIENCE_S):
            await context.abort(grpc.StatusCode[reply.status.grpc], reply.message[:_MAX_MESSAGE_CHARS], trailers)
    except TimeoutError:
        raise asyncio.CancelledError from None
