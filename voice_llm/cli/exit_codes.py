"""Exit codes, the same for every command."""

from __future__ import annotations

from enum import IntEnum

from ..errors import DrainingError, InvalidRequestError, LoadingError, NotFoundError

__all__ = ["ExitCode", "exit_code_of"]


class ExitCode(IntEnum):
    """What a command's exit status means."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_READY = 3
    OBJECTIVE_MISSED = 4


def exit_code_of(error: Exception) -> ExitCode:
    """Return ``USAGE`` for what the user asked wrongly, ``NOT_READY`` for a server that is, else ``FAILED``."""
    if isinstance(error, (InvalidRequestError, NotFoundError)):
        return ExitCode.USAGE
    return ExitCode.NOT_READY if isinstance(error, (LoadingError, DrainingError)) else ExitCode.FAILED
