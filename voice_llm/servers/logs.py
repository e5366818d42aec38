"""JsonFormatter: log records as JSON lines, with the request that they belong to."""

from __future__ import annotations

import datetime
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from typing import Any, Final, TextIO

from ..errors import ConfigError, EngineError, ModelFileError
from .tracing import current_trace

__all__ = ["LOG_LEVELS", "DiscreetFormatter", "JsonFormatter", "set_up_logging"]

LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
"""What ``set_up_logging`` takes, in any case."""

_PLAIN: Final = "%(asctime)s.%(msecs)03d %(levelname)-8s %(name)s  %(message)s"

# Their texts are made of numbers, names of settings and files. That of any other may quote what a caller said.
_MAY_BE_QUOTED: Final = (ConfigError, EngineError, ModelFileError, OSError)


class DiscreetFormatter(logging.Formatter):
    """Shows where an exception came from and its type, and its text only where that cannot hold a caller's words."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        """See ``logging.Formatter``."""
        error = ei[1]
        return "" if error is None else "\n".join(_describe(error, set()))


class JsonFormatter(DiscreetFormatter):
    """Makes one JSON object a record, on one line.

    Fields: ``time`` (UTC, milliseconds), ``level``, ``logger``, ``message``; ``trace_id``, ``span_id``, ``tenant`` and
    ``call_id`` where the record was made for a request; ``exception`` with the traceback where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        made = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": f"{made:%Y-%m-%dT%H:%M:%S}.{made.microsecond // 1000:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace = current_trace()
        if trace is not None:
            request = {
                "trace_id": trace.trace_id,
                "span_id": trace.span_id,
                "tenant": trace.tenant,
                "call_id": trace.call_id,
            }
            line |= {name: value for name, value in request.items() if value}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # Half of a surrogate pair, which no stream takes, becomes the JSON escape that it is.
        return json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def set_up_logging(level: int | str, *, json: bool, stream: TextIO | None = None) -> None:
    """Send the process's log to the standard error output; for programs such as ``voice-llm serve``, never for imports.

    Args:
        level: One of ``LOG_LEVELS``, or a number of ``logging``, for this package. Of libraries, warnings and errors
            are shown: their other lines hold addresses and headers, which may name callers.
        json: Whether to write JSON lines, else plain text.
        stream: Where to, instead of the standard error output.

    Raises:
        ConfigError: The level is not known.
    """
    if isinstance(level, str) and level.lower() not in LOG_LEVELS:
        raise ConfigError(f"log level is {level!r}; allowed is one of {', '.join(LOG_LEVELS)}", param="log_level")
    chosen = level if isinstance(level, int) else logging.getLevelNamesMapping()[level.upper()]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if json else DiscreetFormatter(_PLAIN, datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, chosen))
    logging.getLogger("voice_llm").setLevel(chosen)
    logging.captureWarnings(True)


def _describe(error: BaseException, seen: set[int]) -> Iterator[str]:
    """Yield an exception and what led to it, the root cause first."""
    if id(error) in seen:
        return
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _describe(before, seen)
    for part in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield from _describe(part, seen)
    kind = type(error)
    said = f": {error}" if isinstance(error, _MAY_BE_QUOTED) else ""
    where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    yield f"{where}\n{kind.__module__}.{kind.__qualname__}{said}".lstrip()
