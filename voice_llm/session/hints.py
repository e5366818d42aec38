"""Hints: what is known of the next prompt, computed while nobody waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..errors import VoiceLLMError
from ..prompt import Message

__all__ = ["Hints"]

logger = logging.getLogger(__name__)


class Hints:
    """Prefills in the background, one at a time; only the latest wish counts.

    Args:
        prefill: Brings messages into the cache, open-ended or not.
    """

    def __init__(self, prefill: Callable[[list[Message], bool], Awaitable[None]]) -> None:
        self._prefill = prefill
        self._wish: tuple[list[Message], bool] | None = None
        self._task: asyncio.Task[None] | None = None

    def show(self, messages: list[Message], *, open_ended: bool) -> None:
        """Wish for these messages, in place of an earlier wish that has not been begun."""
        self._wish = (messages, open_ended)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow())

    def drop(self) -> None:
        """Give up the wish; what has been begun gives way to a turn by itself."""
        self._wish = None

    async def wait(self) -> None:
        """Wait until all that was wished for has been done."""
        if self._task is not None:
            await self._task

    async def _follow(self) -> None:
        while self._wish is not None:
            wish, self._wish = self._wish, None
            try:
                await self._prefill(*wish)
            except VoiceLLMError as e:
                logger.debug("a hint was not prefilled: %s", e.code)
