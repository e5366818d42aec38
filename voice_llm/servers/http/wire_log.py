"""What the HTTP library logs: its errors quote what was sent, and so may hold what a caller said."""

from __future__ import annotations

import logging
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError

__all__ = ["wire_logger"]

_NAME: Final = f"{__name__}.aiohttp"


def wire_logger() -> logging.Logger:
    """Return the logger that the HTTP library is to use."""
    logger = logging.getLogger(_NAME)
    logger.addFilter(_without_quotes)
    return logger


def _without_quotes(record: logging.LogRecord) -> bool:
    """Of what is no HTTP, tell the kind only; it says more of its sender than of us, and is no error here."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.exc_info = None
        record.msg = f"{record.msg}: {type(error).__name__}"
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return True
