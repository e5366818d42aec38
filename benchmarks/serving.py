"""What callers of a served engine notice when a process dies: the server's own, and a client's."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from voice_llm._proto import call_pb2 as pb
from voice_llm._proto import call_pb2_grpc, llama_pb2, llama_pb2_grpc

from .common import PROFILE, Proof
from .server_process import ServerProcess

MAX_STEP_MS: Final = 100.0
_PATIENCE_S: Final = 60.0
_TENANT: Final = (("x-tenant-id", "proof"),)
# Loading may take longer beside other work; what must not happen is a wait that has nothing to do with it.
_SHARE_OF_START: Final = 1.5
_PROMPT_TOKENS: Final = 2000
# One word of this is one token of SmolLM2.
_LONG_PROMPT: Final = "water " * _PROMPT_TOKENS


@contextmanager
def serving(*arguments: str) -> Iterator[ServerProcess]:
    """Serve the packaged model."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(["--profile", PROFILE, *arguments], Path(folder) / "serve.log") as server,
    ):
        yield server


async def abort() -> list[Proof]:
    """Abort the engine's process in the middle of a reply."""
    with serving("--calls", "4", "--context-per-call", "2048") as server:
        figures = await abort_figures(server)
    bound_s = figures["first_start_s"] * _SHARE_OF_START
    return [
        Proof(
            "abort",
            "SIGABRT in the engine's process: a call in its reply and a new one get UNAVAILABLE, and the server is "
            f"healthy again within {_SHARE_OF_START} times its first start",
            figures["running_call"] == figures["new_call"] == "UNAVAILABLE" and figures["restart_s"] <= bound_s,
            figures,
        )
    ]


async def abort_figures(server: ServerProcess) -> dict[str, Any]:
    """Return how long the first start and the restart took, and what clients were told between them."""
    first_start_s = await server.healthy()
    before = server.engine_pid()
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        stream = call_pb2_grpc.CallServiceStub(channel).Converse(metadata=_TENANT)
        await stream.write(pb.ClientEvent(start=pb.Start(params=pb.Params(max_tokens=512))))
        await stream.read()
        await stream.write(pb.ClientEvent(turn=pb.Turn(turn_id="t", text="Count from one to a thousand.")))
        await stream.read()
        os.kill(before, signal.SIGABRT)
        died_s = time.monotonic()
        running = await _code_of(stream)
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        new = await _code_of(_ask(channel, "Hello?"))
    await server.healthy()
    restart_s = time.monotonic() - died_s
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        after = await _code_of(_ask(channel, "Hello?"))
    return {
        "running_call": running,
        "new_call": new,
        "after": after,
        "other_process": server.engine_pid() != before,
        "first_start_s": round(first_start_s, 2),
        "restart_s": round(restart_s, 2),
    }


async def killed_client() -> list[Proof]:
    """Kill a client during a prefill of 2,000 tokens."""
    with serving("--calls", "4", "--context-per-call", "4096") as server:
        await server.healthy()
        figures = await killed_client_figures(server)
    bound_ms = 2 * MAX_STEP_MS  # the step that runs when the news arrives, planned for 100 ms, and its error
    return [
        Proof(
            "killed_client",
            f"a client killed during a prefill of {_PROMPT_TOKENS:,} tokens: the rest is not computed, and the "
            f"cancel takes effect within one bounded step ({bound_ms:.0f} ms with the cost model's error)",
            figures["cancel_ms"] <= bound_ms
            and figures["prefilled_tokens"] < _PROMPT_TOKENS
            and not figures["held_sequences"],
            figures,
        )
    ]


async def killed_client_figures(server: ServerProcess) -> dict[str, Any]:
    """Return how long the cancel took, by the server's own metrics, and what had been computed by then."""
    steps = "voice_llm_step_seconds_count"
    before = await asyncio.to_thread(server.metric, steps, kind="prefill")
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", _CLIENT, server.grpc, _LONG_PROMPT)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while await asyncio.to_thread(server.metric, steps, kind="prefill") < before + 2:
                await asyncio.sleep(0.02)
    finally:
        client.kill()
        killed_s = time.monotonic()
        await client.wait()
    async with asyncio.timeout(_PATIENCE_S):
        while await asyncio.to_thread(server.metric, "voice_llm_sequences_held"):
            await asyncio.sleep(0.005)
    freed_ms = (time.monotonic() - killed_s) * 1e3
    cancels = await asyncio.to_thread(server.metric, "voice_llm_cancel_latency_seconds_count")
    cancel_s = await asyncio.to_thread(server.metric, "voice_llm_cancel_latency_seconds_sum")
    return {
        "cancel_ms": round(cancel_s / max(cancels, 1) * 1e3, 1),
        "cancels": cancels,
        "freed_seen_ms": round(freed_ms, 1),
        "prefilled_tokens": await asyncio.to_thread(server.metric, "voice_llm_prompt_tokens_total"),
        "held_sequences": await asyncio.to_thread(server.metric, "voice_llm_sequences_held"),
    }


_CLIENT: Final = """
import sys
import grpc
from voice_llm._proto import llama_pb2, llama_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    request = llama_pb2.GenerateStreamRequest(user_prompt=sys.argv[2])
    for _ in llama_pb2_grpc.LlamaServiceStub(channel).GenerateStream(request, metadata=(("x-tenant-id", "proof"),)):
        pass
"""


def _ask(channel: grpc.aio.Channel, text: str) -> Any:
    request = llama_pb2.GenerateStreamRequest(
        user_prompt=text, params=llama_pb2.GenerationParams(max_new_tokens=8, temperature=0)
    )
    return llama_pb2_grpc.LlamaServiceStub(channel).GenerateStream(request, metadata=_TENANT)


async def _code_of(stream: Any) -> str:
    """Read a stream to its end; returns its status."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while await stream.read() is not grpc.aio.EOF:
                pass
    except grpc.aio.AioRpcError as e:
        return str(e.code().name)
    return str((await stream.code()).name)
