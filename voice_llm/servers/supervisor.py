"""Supervisor: starts the server's process again when it dies of something that Python cannot catch."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

__all__ = ["ENGINE_DIED", "SUPERVISED", "Supervisor", "this_command"]

logger = logging.getLogger(__name__)

ENGINE_DIED: Final = 75
"""Exit status of a server whose engine has died: worth another try (``EX_TEMPFAIL``)."""

SUPERVISED: Final = "VOICE_LLM_SUPERVISED"
"""Environment variable of a supervised process. Its standard input is a pipe that ends with the supervisor."""

_MAX_DEATHS: Final = 5
_WITHIN_S: Final = 60.0


class Supervisor:
    """Runs a command until it ends by itself; starts it again where a signal or a dead engine ended it.

    A process that dies ``_MAX_DEATHS`` times within ``_WITHIN_S`` seconds is given up. SIGTERM and SIGINT are passed
    on, and end it for good.

    Args:
        command: What to run.
        clock: Monotonic seconds.
    """

    def __init__(self, command: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._command = list(command)
        self._clock = clock
        self._deaths: deque[float] = deque(maxlen=_MAX_DEATHS)
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def run(self) -> int:
        """Supervise to the end; returns the exit status."""
        before = {number: signal.signal(number, self._pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            while not self._stopping:
                status = self._run_once()
                if not self._starts_again(status):
                    return self._status(status)
            return 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run_once(self) -> int:
        environment = {**os.environ, SUPERVISED: "1"}
        # A group of its own: Ctrl-C in a terminal would reach it twice, by itself and through us.
        self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
        if self._stopping:
            self._child.terminate()
        with self._child:
            # Popen's exit would close the pipe first, which tells the child that we are gone.
            return self._child.wait()

    def _starts_again(self, status: int) -> bool:
        if self._stopping or (status >= 0 and status != ENGINE_DIED):
            return False
        now_s = self._clock()
        why = signal.Signals(-status).name if status < 0 else "a dead engine"
        self._deaths.append(now_s)
        if len(self._deaths) == _MAX_DEATHS and now_s - self._deaths[0] < _WITHIN_S:
            logger.error("the server died of %s for the %dth time in %.0f s: given up", why, _MAX_DEATHS, _WITHIN_S)
            return False
        logger.error("the server died of %s; it is started again", why)
        return True

    def _status(self, status: int) -> int:
        if self._stopping and -status in (signal.SIGTERM, signal.SIGINT):
            return 0  # told to end before it could listen: what was wanted has happened
        return 128 - status if status < 0 else status

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)


def this_command(*arguments: str) -> list[str]:
    """Return the command line that runs this program anew, with other arguments."""
    # -P: as with the installed script, nothing is imported from the working directory.
    return [sys.executable, "-P", "-m", "voice_llm.cli", *arguments]
