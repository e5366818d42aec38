"""What gRPC adds to a token's way: from the moment it is drawn to its arrival in another process."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from itertools import chain
from typing import Any, Final

import grpc

from voice_llm._proto import llama_pb2 as pb

from .common import Proof, percentile
from .streaming_server import MEASURED, STREAMS, TOKENS, TOKENS_PER_S, drawn_ns

__all__ = ["token_path"]

_METHOD: Final = "/sentiric.llm.v1.LlamaService/GenerateStream"
_BOUNDS_MS: Final = {"together": 6.0, "staggered": 2.0}
_ROWS: Final = {"together": STREAMS, "staggered": 1}
_ROUNDS: Final = 3
_PATIENCE_S: Final = 120.0
Arrivals = list[tuple[int, bytes]]
"""When each message arrived, in nanoseconds on the machine's monotonic clock, and what it was."""


async def token_path() -> list[Proof]:
    """Let 32 replies stream at once: all tokens of a step together, and one token a step."""
    found = {way: _median([await _measure(way) for _ in range(_ROUNDS)]) for way in _BOUNDS_MS}
    return [
        Proof(
            f"streaming_{way}",
            f"{STREAMS} gRPC streams of {TOKENS_PER_S} tokens/s on the fake backend, "
            f"{'all in one step' if way == 'together' else 'one in a step'}: at most {bound_ms:.0f} ms (p95, median of "
            f"{_ROUNDS} rounds) from a token's draw to its arrival in another process",
            _holds(found[way], bound_ms),
            found[way],
        )
        for way, bound_ms in _BOUNDS_MS.items()
    ]


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the round whose p95 is the middle one, and the p95 of all."""
    ordered = sorted(rounds, key=lambda figures: figures["p95_ms"])
    return {**ordered[len(ordered) // 2], "p95s_ms": [figures["p95_ms"] for figures in rounds]}


def _holds(figures: dict[str, Any], bound_ms: float) -> bool:
    whole = figures["messages"] == STREAMS * len(MEASURED)
    return bool(whole and figures["tokens_per_s"] > 0.98 * TOKENS_PER_S and figures["p95_ms"] <= bound_ms)


async def _measure(way: str) -> dict[str, Any]:
    server = await _process("benchmarks.streaming_server", str(_ROWS[way]), stdin=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        port = int(await asyncio.wait_for(server.stdout.readline(), _PATIENCE_S))
        client = await _process("benchmarks.streaming", str(port))
        try:
            listened, _ = await asyncio.wait_for(client.communicate(), _PATIENCE_S)
        finally:
            await _end(client)
        served, _ = await asyncio.wait_for(server.communicate(b""), _PATIENCE_S)
    finally:
        await _end(server)
    return _figures(json.loads(listened), json.loads(served))


def _figures(client: dict[str, Any], server: dict[str, Any]) -> dict[str, Any]:
    ways_ms, messages = client["ways_ms"], len(client["ways_ms"])
    return {
        **{f"p{share * 100:.0f}_ms": round(percentile(ways_ms, share), 2) for share in (0.5, 0.95, 0.99)},
        "max_ms": round(max(ways_ms), 2),
        "messages": messages,
        "tokens_per_s": round(len(MEASURED) / server["wall_s"], 1),
        "server_cpu_s_per_1000": round(server["cpu_s"] / messages * 1e3, 3),
        "client_cpu_s_per_1000": round(client["cpu_s"] / (STREAMS * TOKENS) * 1e3, 3),
    }


async def _process(module: str, argument: str, *, stdin: int | None = None) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, argument, stdin=stdin, stdout=asyncio.subprocess.PIPE, limit=2**26
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


async def listen(port: int) -> dict[str, Any]:
    """Read 32 replies at once, in the client's process; returns the ways of the measured tokens."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        # Messages are taken as they come and read afterwards: it is not the client that is measured.
        ask: Any = channel.unary_stream(_METHOD, request_serializer=pb.GenerateStreamRequest.SerializeToString)
        gc.collect()
        gc.freeze()
        used = resource.getrusage(resource.RUSAGE_SELF)
        replies = await asyncio.gather(*(_read(ask) for _ in range(STREAMS)))
        done = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = done.ru_utime + done.ru_stime - used.ru_utime - used.ru_stime
    return {"ways_ms": list(chain.from_iterable(map(_ways_ms, replies))), "cpu_s": cpu_s}


async def _read(ask: Any) -> Arrivals:
    request = pb.GenerateStreamRequest(user_prompt="Go on.", params=pb.GenerationParams(max_new_tokens=TOKENS))
    arrivals: Arrivals = []
    async for message in ask(request, metadata=(("x-tenant-id", "default"),)):
        arrivals.append((time.monotonic_ns(), message))
    return arrivals


def _ways_ms(arrivals: Arrivals) -> list[float]:
    ways_ms = []
    for index in MEASURED:
        arrived_ns, message = arrivals[index]
        token = pb.GenerateStreamResponse.FromString(message).token.decode()
        ways_ms.append((arrived_ns - drawn_ns(token)) / 1e6)
    return ways_ms


if __name__ == "__main__":
    print(json.dumps(asyncio.run(listen(int(sys.argv[1])))))
