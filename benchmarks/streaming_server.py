"""The server's process of the proof in ``streaming.py``: gRPC around an engine whose tokens come at a steady pace.

Each token's text is the time at which it was drawn. The first line of the output is the port, the second, once all
replies have ended, what the measured part of them cost.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from voice_llm import Engine, Profile
from voice_llm.backend import BatchEntry
from voice_llm.backend.base import Sampler
from voice_llm.config import EngineConfig, ServerConfig
from voice_llm.config.profile import ModelSource
from voice_llm.servers.edge import Edge
from voice_llm.servers.grpc import GrpcServer
from voice_llm.servers.host import EngineHost
from voice_llm.servers.metrics import PrometheusObserver
from voice_llm.testing import FakeBackend

__all__ = ["MEASURED", "STREAMS", "TOKENS", "TOKENS_PER_S", "drawn_ns"]

STREAMS: Final = 32
TOKENS_PER_S: Final = 50
TOKENS: Final = 600
MEASURED: Final = range(75, 575)
"""Which tokens of a reply count: all streams have started before, and none has ended."""

_CATCH_UP_S: Final = 0.02
"""How far the pace may fall behind and be made good."""

_STAMP: Final = 1  # a token that no prompt holds
_LETTERS: Final = str.maketrans("0123456789", "abcdefghij")  # digits and their points are held back for a moment
_DIGITS: Final = str.maketrans("abcdefghij", "0123456789")


def drawn_ns(token: str) -> int:
    """Return when a token was drawn, on the machine's monotonic clock."""
    return int(token.strip().translate(_DIGITS))


class PacedBackend(FakeBackend):
    """Draws 50 tokens a second for each of 32 calls.

    Args:
        rows: How many of them a step takes: all, or one, so that the calls' steps are spread over the time.
        clock: Monotonic seconds.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        rows: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(sequences=STREAMS, context_per_call=2 * TOKENS, max_batch_tokens=rows)
        self._period_s = rows / STREAMS / TOKENS_PER_S
        self._now_s, self._sleep = clock, sleep
        self._next_s = clock()
        self._drawn_ns = 0
        self._drawn = 0
        self.cost = _Cost()

    def decode(self, entries: Sequence[BatchEntry]) -> int:
        """See ``Backend``; a step of replies ends with the next beat."""
        micro_batches = super().decode(entries)
        self.batches.clear()
        if all(entry.tokens == (_STAMP,) for entry in entries):
            now_s = self._now_s()
            self._next_s = max(self._next_s + self._period_s, now_s - _CATCH_UP_S)
            self._sleep(max(0.0, self._next_s - now_s))
        return micro_batches

    def sample(self, entry_index: int, sampler: Sampler) -> int:
        """See ``Backend``."""
        self._drawn += 1
        if self._drawn in (MEASURED.start * STREAMS, MEASURED.stop * STREAMS):
            self.cost.note()
        self._drawn_ns = time.monotonic_ns()
        return _STAMP

    def token_bytes(self, token: int) -> bytes:
        """See ``Tokenizer``; a drawn token is asked for at once."""
        return f" {self._drawn_ns}".translate(_LETTERS).encode() if token == _STAMP else super().token_bytes(token)


@dataclass(slots=True)
class _Cost:
    """Processor and wall time, from the first note to the last."""

    cpu_s: float = 0.0
    wall_s: float = 0.0

    def note(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu_s = used.ru_utime + used.ru_stime - self.cpu_s
        self.wall_s = time.monotonic() - self.wall_s


async def serve(rows: int) -> dict[str, Any]:
    """Serve until standard input ends; returns what the measured part cost."""
    backend, observer = PacedBackend(rows), PrometheusObserver()
    profile = Profile(
        name="streaming",
        model=ModelSource(path="none.gguf"),
        engine=EngineConfig(max_step_ms=10_000, sequences=STREAMS),
    )
    host = EngineHost(
        lambda: Engine.start(backend, profile, observer=observer), profile_name=profile.name, observer=observer
    )
    host.start()
    await host.wait_ready()
    edge = Edge.around(host, ServerConfig(grpc_port=0))
    server = GrpcServer(edge)
    print(await server.start(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()
    await edge.close()
    await host.close()
    return {"cpu_s": backend.cost.cpu_s, "wall_s": backend.cost.wall_s}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(serve(int(sys.argv[1])))))
