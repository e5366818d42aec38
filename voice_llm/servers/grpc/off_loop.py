"""What is too much to be converted on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from google.protobuf.message import Message

__all__ = ["converted"]

_T = TypeVar("_T")

# Going through more than this takes milliseconds, which the event loop owes to all calls.
_INLINE_BYTES: Final = 64 * 1024


async def converted(message: Message, convert: Callable[[], _T]) -> _T:
    """Return what ``convert`` makes of ``message``; in a thread where the message is large."""
    if message.ByteSize() <= _INLINE_BYTES:
        return convert()
    return await asyncio.to_thread(convert)
