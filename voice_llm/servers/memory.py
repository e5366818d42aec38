"""Give memory back to the system that a burst of large requests has left behind."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["give_memory_back", "resident_bytes"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 2.0
_GROWN_BYTES: Final = 16 << 20


def resident_bytes() -> int:
    """Return the memory that this process holds; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


async def give_memory_back(*, every_s: float = _EVERY_S, grown_bytes: int = _GROWN_BYTES) -> None:
    """Watch the process's memory for ever, and hand back what is free of it whenever it has grown.

    What has failed sits in cycles of exceptions and frames until a rare full collection, and glibc keeps freed memory
    of its heaps. Both take milliseconds, so they are done only where there is something to gain.

    Args:
        every_s: How often to look.
        grown_bytes: What is worth the trouble.
    """
    trim = _trim()
    least = resident_bytes()
    while trim is not None:
        await asyncio.sleep(every_s)
        before = resident_bytes()
        if before < least + grown_bytes:
            least = min(least, before)
            continue
        gc.collect()
        await asyncio.to_thread(trim, 0)
        least = resident_bytes()
        logger.debug("memory: %.0f MiB, %.0f before it was trimmed", least / 2**20, before / 2**20)


def _trim() -> Callable[[int], int] | None:
    """Return ``malloc_trim``, where the C library has it."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return trim
