"""UsageCount: what all replies of a call have used."""

from __future__ import annotations

import logging

from ..errors import VoiceLLMError
from ..events import Usage
from ..runtime import ReplyStream

__all__ = ["UsageCount"]

logger = logging.getLogger(__name__)


class UsageCount:
    """Sums up what replies have used, each once, whether or not somebody read them to their end."""

    def __init__(self) -> None:
        self._sum = Usage()
        self._uncounted: list[ReplyStream] = []

    def add(self, stream: ReplyStream) -> None:
        """Count a reply once it has ended."""
        self._uncounted = [s for s in self._uncounted if not self._count(s)]
        self._uncounted.append(stream)

    def failed(self, stream: ReplyStream) -> None:
        """Note that a reply has failed: it has told nothing to count, and never will."""
        if stream.finished is None and stream in self._uncounted:
            self._uncounted.remove(stream)

    async def ended(self, stream: ReplyStream) -> None:
        """Wait for the end of a reply that was cancelled."""
        try:
            async for _ in stream:
                pass
        except VoiceLLMError as e:
            logger.debug("a reply that was given up had failed: %s", e.code)
            self.failed(stream)

    async def total(self) -> Usage:
        """Wait until all replies have ended, and return what they have used."""
        for stream in tuple(self._uncounted):
            await self.ended(stream)
            self._count(stream)
        self._uncounted.clear()
        return self._sum

    def _count(self, stream: ReplyStream) -> bool:
        """Count a reply that has ended; returns whether it has."""
        if stream.finished is not None:
            self._sum += stream.finished.usage
        return stream.finished is not None
