"""Two hundred connections that behave badly, beside four calls that do not: what the four notice, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
import websockets

from voice_llm._proto import call_pb2 as pb
from voice_llm._proto import call_pb2_grpc

from .common import PROFILE, Proof
from .hostile_clients import BEHAVIOURS
from .questions import CALLS as QUESTIONS
from .server_process import ServerProcess

CONNECTIONS: Final = 200
HEALTHY: Final = 4
DURATION_S: Final = 60.0
_WARM_UP_S: Final = 15.0
_RESUME_S: Final = 2.0
_SETTLE_S: Final = 60.0
_REST_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.25
_MEMORY_SHARE: Final = 1.05
_ENVIRONMENT: Final = {
    "LLM_LLAMA_SERVICE_RESUME_S": str(_RESUME_S),
    "LLM_LLAMA_SERVICE_CALL_IDLE_S": "2",
    "LLM_LLAMA_SERVICE_MAX_CALLS_PER_TENANT": "4",
}


@dataclass(slots=True)
class _Healthy:
    """What one well-behaved caller has seen."""

    turns: int = 0
    lost: list[str] = field(default_factory=list)
    first_chunk_ms: list[float] = field(default_factory=list)


async def two_hundred() -> list[Proof]:
    """Hold four calls beside the crowd and compare memory, sequences and health before and after."""
    figures = await crowd(CONNECTIONS, DURATION_S, warm_up_s=_WARM_UP_S)
    return [
        Proof(
            "hostile_clients",
            f"{CONNECTIONS} connections that stall, drip, break off, send garbage, too much or out of order for "
            f"{DURATION_S:.0f} s beside {HEALTHY} calls: no turn of these is lost, /health stays true, no sequence is "
            f"left behind, and memory ends within {_MEMORY_SHARE - 1:.0%} of where it was",
            _passed(figures),
            figures,
        )
    ]


async def crowd(connections: int, duration_s: float, *, warm_up_s: float) -> dict[str, Any]:
    """Run the crowd against a server of its own; returns the figures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(
            # One thread: the crowd needs the other core, and OpenMP's threads wait badly for one that has none.
            ["--profile", PROFILE, "--calls", "8", "--context-per-call", "2048", "--threads", "1"],
            Path(folder) / "serve.log",
            environment=_ENVIRONMENT,
        ) as server,
    ):
        await server.healthy()
        # What is allocated once (buffers, native pools, the allocator's arenas) is no leak: it is warmed up first.
        await _hostile(server, connections, warm_up_s, Counter())
        await _settled(server)
        before = server.resident_bytes()
        behaviours: Counter[str] = Counter()
        stop, opened = asyncio.Event(), asyncio.Barrier(HEALTHY + 1)
        callers = [asyncio.create_task(_hold_call(server, index, opened, stop)) for index in range(HEALTHY)]
        await opened.wait()
        watching = asyncio.create_task(_watch_health(server, stop))
        await _hostile(server, connections, duration_s, behaviours)
        stop.set()
        healthy = await asyncio.gather(*callers)
        unhealthy = await watching
        left = await _settled(server)
        after = server.resident_bytes()
        return {
            "connections": sum(behaviours.values()),
            "behaviours": dict(sorted(behaviours.items())),
            "healthy_turns": sum(caller.turns for caller in healthy),
            "lost": [lost for caller in healthy for lost in caller.lost],
            "first_chunk_max_ms": round(max(ms for caller in healthy for ms in caller.first_chunk_ms), 1),
            "unhealthy_answers": unhealthy,
            "held_sequences": left,
            "memory_before_mib": round(before / 2**20, 1),
            "memory_after_mib": round(after / 2**20, 1),
            "server_alive": server.process.poll() is None,
        }


def _passed(figures: dict[str, Any]) -> bool:
    clean = not figures["lost"] and not figures["unhealthy_answers"] and not figures["held_sequences"]
    kept = figures["memory_after_mib"] <= figures["memory_before_mib"] * _MEMORY_SHARE
    return bool(clean and kept and figures["healthy_turns"] and figures["server_alive"])


async def _settled(server: ServerProcess) -> float:
    """Wait until nothing is held any more and memory is at rest; returns the sequences that are held in the end."""
    held, memory, rest = -1.0, 0, 0
    for _ in range(int(_SETTLE_S / _LOOK_EVERY_S)):
        await asyncio.sleep(_LOOK_EVERY_S)
        held = await asyncio.to_thread(server.metric, "voice_llm_sequences_held")
        last, memory = memory, server.resident_bytes()
        rest = rest + 1 if not held and abs(memory - last) < 2**20 else 0
        if rest * _LOOK_EVERY_S >= _REST_S:
            break
    return held


async def _watch_health(server: ServerProcess, stop: asyncio.Event) -> list[int]:
    """Ask again and again; returns the answers that were not 200."""
    bad: list[int] = []
    while not stop.is_set():
        status, _ = await asyncio.to_thread(server.health)
        bad += [status] if status != 200 else []
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5)
    return bad


async def _hold_call(server: ServerProcess, index: int, opened: asyncio.Barrier, stop: asyncio.Event) -> _Healthy:
    """One call over Converse, turn after turn; notes each turn that is not whole."""
    seen = _Healthy()
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        stream = call_pb2_grpc.CallServiceStub(channel).Converse(metadata=(("x-tenant-id", "healthy"),))
        start = pb.Start(call_id=f"healthy-{index}", params=pb.Params(max_tokens=24, temperature=0))
        await stream.write(pb.ClientEvent(start=start))
        await stream.read()
        await opened.wait()
        questions = QUESTIONS[index % len(QUESTIONS)]
        while not stop.is_set():
            turn_id = f"t{seen.turns}"
            text = questions[seen.turns % len(questions)]
            await stream.write(pb.ClientEvent(turn=pb.Turn(turn_id=turn_id, text=text)))
            seen.lost += await _read_turn(stream, turn_id, seen)
            seen.turns += 1
            await asyncio.sleep(random.uniform(0.5, 1.5))
        await stream.write(pb.ClientEvent(end=pb.End()))
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await stream.read() is not grpc.aio.EOF:
                pass
    return seen


async def _read_turn(stream: Any, turn_id: str, seen: _Healthy) -> list[str]:
    chunks = 0
    async with asyncio.timeout(60):
        while True:
            event = await stream.read()
            if event is grpc.aio.EOF:
                return [f"{turn_id}: the stream ended"]
            kind = event.WhichOneof("event")
            if kind == "chunk":
                if event.chunk.turn_id != turn_id or event.chunk.index != chunks:
                    return [f"{turn_id}: chunk {event.chunk.turn_id}/{event.chunk.index} instead of {chunks}"]
                chunks += 1
            elif kind == "error":
                return [f"{turn_id}: {event.error.code}"]
            elif kind == "turn_end":
                seen.first_chunk_ms.append(event.turn_end.timings.first_chunk_ms)
                whole = event.turn_end.finish_reason in ("stop", "length") and chunks
                return [] if whole else [f"{turn_id}: {event.turn_end.finish_reason}, {chunks} chunks"]


async def _hostile(server: ServerProcess, connections: int, duration_s: float, seen: Counter[str]) -> None:
    until_s = time.monotonic() + duration_s

    async def misbehave(index: int) -> None:
        rng = random.Random(index)
        while time.monotonic() < until_s:
            behaviour = rng.choice(BEHAVIOURS)
            seen[behaviour.__name__.strip("_")] += 1
            # Whatever the server answers to this is fine, and so is hanging up.
            with contextlib.suppress(
                OSError,
                TimeoutError,
                EOFError,
                aiohttp.ClientError,
                grpc.aio.AioRpcError,
                asyncio.InvalidStateError,  # gRPC's word for a write to a stream that the server has ended
                websockets.WebSocketException,
            ):
                async with asyncio.timeout(max(0.5, min(8.0, until_s - time.monotonic()))):
                    await behaviour(server, rng)

    await asyncio.gather(*(misbehave(index) for index in range(connections)))
