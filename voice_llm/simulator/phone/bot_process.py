"""BotProcess: a bot script of Pipecat's runner as a process of its own, for as long as it is needed."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from .errors import BotProcessError

__all__ = ["CALL_LOG_VARIABLE", "BotProcess"]

CALL_LOG_VARIABLE: Final = "VOICE_LLM_CALL_LOG"
"""The environment variable that names a bot's call log."""

_HOST: Final = "127.0.0.1"
_POLL_S: Final = 0.1
_PROBE_TIMEOUT_S: Final = 2.0
_END_TIMEOUT_S: Final = 5.0
_SHOWN_LINES: Final = 12


class BotProcess:
    """Starts a bot for Twilio on a free port, waits until it takes calls, and ends it on every way out.

    Args:
        script: The bot's file.
        output_path: Where what it prints is kept.
        call_log_path: Named to the bot as its call log.
        arguments: More arguments for the script.
        environment: More variables for it.
        ready_timeout_s: How long it may take to accept calls.
        on_wait: Called some times a second while it does not yet, with the seconds so far.

    Example:
        ::

            async with BotProcess(script, output_path=Path("bot.log")) as bot:
                await PhoneCaller(bot.url, lines).call()
    """

    def __init__(
        self,
        script: Path,
        *,
        output_path: Path,
        call_log_path: Path | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        ready_timeout_s: float = 120.0,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self._script = script
        self._output_path = output_path
        self._arguments = tuple(arguments)
        self._environment = {**os.environ, **(environment or {})}
        if call_log_path is not None:
            self._environment[CALL_LOG_VARIABLE] = str(call_log_path.absolute())
        self._ready_timeout_s = ready_timeout_s
        self._on_wait = on_wait
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it takes calls."""
        return f"ws://{_HOST}:{self._port}/ws"

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return self._process.pid if self._process is not None else None

    async def __aenter__(self) -> Self:
        """Start it and wait until it takes calls.

        Raises:
            BotProcessError: It ended by itself, or was not ready in time.
        """
        try:
            self._start()
            await self._wait_until_ready()
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._end()

    def check(self) -> None:
        """Raise where it has ended by itself.

        Raises:
            BotProcessError: It has; the message ends with what it wrote last.
        """
        if self._process is not None and (status := self._process.poll()) is not None:
            raise BotProcessError(f"the bot ended by itself with status {status}{self._last_lines()}")

    def _start(self) -> None:
        if not self._script.is_file():
            raise BotProcessError(f"there is no bot script {self._script}")
        self._port = _free_port()
        command = [sys.executable, str(self._script), "-t", "twilio", "--host", _HOST, "--port", str(self._port)]
        with self._output_path.open("wb") as output:
            # In a session of its own, so that an interrupt at the terminal reaches it through us only.
            self._process = subprocess.Popen(
                [*command, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    async def _wait_until_ready(self) -> None:
        started_s = time.monotonic()
        while not await _answers_http(self._port):
            self.check()
            waited_s = time.monotonic() - started_s
            if waited_s > self._ready_timeout_s:
                limit = f"{self._ready_timeout_s:g} s"
                raise BotProcessError(f"the bot did not take calls within {limit}{self._last_lines()}")
            if self._on_wait is not None:
                self._on_wait(waited_s)
            await asyncio.sleep(_POLL_S)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _last_lines(self) -> str:
        lines = self._output_path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
        return "; it wrote last:\n" + "\n".join(lines[-_SHOWN_LINES:]) if lines else " and wrote nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def _answers_http(port: int) -> bool:
    """Whether the runner's status page is served: its server accepts connections before its routes are up."""
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(_HOST, port)
            try:
                writer.write(f"GET /status HTTP/1.1\r\nHost: {_HOST}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
