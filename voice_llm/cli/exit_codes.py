"""Exit codes, the same for every command."""

from __future__ import annotations

from enum import IntEnum

from ..errors import InvalidRequestError, NotFoundError

__all__ = ["ExitCode", "exit_code_of"]


class ExitCode(IntEnum):
    """What a command's exit status means."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_READY = 3
    OBJECTIVE_MISSED = 4


def exit_code_of(error: Exception) -> ExitCode:
    """Return ``USAGE`` for what the user asked wrongly, ``FAILED`` for what went wrong."""
    return ExitCode.USAGE if isinstance(error, (InvalidRequestError, NotFoundError)) else ExitCode.FAILED
