"""Tracing: which request a log line, a reply and a span belong to."""

from .request import Trace, current_trace, entered
from .spans import set_up_tracing

__all__ = ["Trace", "current_trace", "entered", "set_up_tracing"]
