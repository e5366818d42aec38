"""What all clients share: how they run, how they fail, and the libraries they need only when they run."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, Final

import typer
from rich.console import Console

from ..errors import ConfigError, VoiceLLMError
from ..session import CallError, to_json
from .exit_codes import ExitCode, exit_code_of

__all__ = ["UnreachableError", "consoles", "print_json", "require", "run_client"]

_HINT: Final = "is it running? start one with: voice-llm serve"


class UnreachableError(VoiceLLMError):
    """No server answers at an endpoint.

    Attributes:
        endpoint: Where, as ``host:port``.
        why: What went wrong, for people.
    """

    code: ClassVar[str] = "unreachable"

    def __init__(self, endpoint: str, why: str) -> None:
        super().__init__(endpoint, why)
        self.endpoint = endpoint
        self.why = why

    def __str__(self) -> str:
        return f"no server at {self.endpoint}: {self.why}; {_HINT}"


def run_client(command: Callable[[], Coroutine[Any, Any, ExitCode]], *, as_json: bool) -> None:
    """Run a client and end with its exit code; an error is one line, or one JSON object."""
    try:
        code = asyncio.run(command())
    except VoiceLLMError as e:
        show_error(e, as_json=as_json)
        code = exit_code_of(e)
    except KeyboardInterrupt:
        code = ExitCode.FAILED
    raise typer.Exit(code)


def show_error(error: VoiceLLMError, *, as_json: bool) -> None:
    """Print an error: for people on the standard error output, for programs as the contract's ``error`` event."""
    if as_json:
        retry_after_s = getattr(error, "retry_after_s", None)
        print_json(to_json(CallError(error.code, str(error), retry_after_s, fatal=True)))
    else:
        typer.secho(f"voice-llm: {error}", err=True, fg=typer.colors.RED)


def print_json(value: object) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def consoles() -> tuple[Console, Console]:
    """Return the consoles of the standard output and error; text on them is data, not markup."""
    out, err = (Console(stderr=stderr, highlight=False, soft_wrap=True, emoji=False) for stderr in (False, True))
    return out, err


def require(module: str) -> ModuleType:
    """Import a module of this package that needs the libraries of the clients.

    Raises:
        ConfigError: One of them is not installed; the message has the command that installs it.
    """
    # gRPC's core writes what failed to the standard error output by itself; here it is said once, in words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return import_module(f".{module}", __package__)
    except ImportError as e:
        raise ConfigError(f"this command needs {e.name or 'a library'}: pip install 'pipecat-voice-llm[remote]'") from e
