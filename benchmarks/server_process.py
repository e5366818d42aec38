"""ServerProcess: a real ``voice-llm serve``, for proofs and tests that need one from outside."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["ServerProcess", "free_ports"]

_PATIENCE_S: Final = 120.0
# Below the ports that systems hand out by themselves, so that nobody takes one meanwhile.
_PORTS: Final = (20_000, 30_000)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listens on; they stay the same when a server is started again."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


class ServerProcess:
    """A server on the loopback.

    Args:
        arguments: Of ``voice-llm serve``, without ports.
        environment: Variables beside those of this process.
        log: Where its standard error goes.

    Attributes:
        http: ``host:port`` of HTTP; likewise ``grpc``, ``metrics`` and ``ws``.
    """

    def __init__(self, arguments: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None) -> None:
        ports = dict(zip(("http", "grpc", "metrics", "ws"), free_ports(4), strict=True))
        self.http, self.grpc, self.metrics, self.ws = (f"127.0.0.1:{port}" for port in ports.values())
        self.log = log
        flags = [flag for name, port in ports.items() for flag in (f"--{name}-port", str(port))]
        command = [sys.executable, "-m", "voice_llm.cli", "serve", "--json", *flags, *arguments]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file, env={**os.environ, **(environment or {})})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return the status and body of ``GET /health``; status 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.http}/health", timeout=5) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as e:
            with e:
                return e.code, json.load(e)
        except OSError:
            return 0, {}

    def wait_healthy(self) -> float:
        """Wait until the model is ready; returns how long that took, in seconds.

        Raises:
            RuntimeError: The server ended, or it takes too long.
        """
        began_s = time.monotonic()
        while time.monotonic() - began_s < _PATIENCE_S:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
            if self.health()[0] == 200:
                return time.monotonic() - began_s
            time.sleep(0.02)
        raise RuntimeError(f"the server is not ready: {self.log.read_text()[-2000:]}")

    async def healthy(self) -> float:
        """As ``wait_healthy``, without blocking the event loop."""
        return await asyncio.to_thread(self.wait_healthy)

    def engine_pid(self) -> int:
        """Return the id of the process that holds the engine: the supervisor's child, where there is a supervisor."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else self.process.pid

    def resident_bytes(self) -> int:
        """Return the memory that the engine's process holds."""
        pages = int(Path(f"/proc/{self.engine_pid()}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of the server's metrics; 0 where there is none."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        wanted = set(labels.items())
        for line in text.splitlines():
            sample, _, value = line.rpartition(" ")
            base, _, rest = sample.partition("{")
            if base == name:
                found = {tuple(p.replace('"', "").split("=", 1)) for p in rest.rstrip("}").split(",") if "=" in p}
                if wanted <= found:
                    return float(value)
        return 0.0
