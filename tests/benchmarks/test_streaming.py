from __future__ import annotations

import asyncio
import itertools
import json
import time

import grpc
import pytest

from benchmarks import streaming
from benchmarks.streaming_server import MEASURED, STREAMS, TOKENS, PacedBackend, drawn_ns
from voice_llm._proto import llama_pb2 as pb
from voice_llm.backend import BatchEntry
from voice_llm.config import SamplingParams

pytestmark = pytest.mark.unit


def arrivals(*, way_ms: float) -> list[tuple[int, bytes]]:
    """A reply whose tokens all had the same way; the last message is its end."""
    backend = PacedBackend(1)
    found = []
    for _ in range(TOKENS):
        backend.sample(0, backend.new_sampler(SamplingParams()))
        text = backend.token_bytes(1)
        message = pb.GenerateStreamResponse(token=text).SerializeToString()
        found.append((drawn_ns(text.decode()) + round(way_ms * 1e6), message))
    end = pb.GenerateStreamResponse(finish_details=pb.FinishDetails(finish_reason="length"))
    return [*found, (0, end.SerializeToString())]


def test_token_says_when_it_was_drawn() -> None:
    backend = PacedBackend(1)
    before_ns = time.monotonic_ns()
    token = backend.sample(0, backend.new_sampler(SamplingParams()))
    after_ns = time.monotonic_ns()
    assert before_ns <= drawn_ns(backend.token_bytes(token).decode()) <= after_ns


def test_way_is_the_time_from_draw_to_arrival() -> None:
    ways_ms = streaming._ways_ms(arrivals(way_ms=3.5))
    assert len(ways_ms) == len(MEASURED)
    assert ways_ms == pytest.approx([3.5] * len(MEASURED))


@pytest.mark.parametrize(("rows", "expected_s"), [(1, 0.02 / STREAMS), (STREAMS, 0.02)])
def test_steps_keep_the_pace_over_many_of_them(rows: int, expected_s: float) -> None:
    """Each step ends one beat after the one before, however long its work took."""
    now_s = 100.0

    def pass_by(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    backend = PacedBackend(rows, clock=lambda: now_s, sleep=pass_by)
    ends_s = []
    for step in range(50):
        pass_by(expected_s * (step % 3) / 3)  # the work of the step
        backend.decode([BatchEntry(i, step, (1,), True) for i in range(rows)])
        ends_s.append(now_s)
    gaps_s = [late - early for early, late in itertools.pairwise(ends_s)]
    assert gaps_s == pytest.approx([expected_s] * len(gaps_s))


def test_prompts_are_not_paced() -> None:
    slept_s: list[float] = []
    PacedBackend(STREAMS, sleep=slept_s.append).decode([BatchEntry(0, 0, tuple(b"Go on."), True)])
    assert slept_s == []


def test_figures_are_those_of_both_processes() -> None:
    figures = streaming._figures(
        {"ways_ms": [1.0, 2.0, 3.0, 4.0], "cpu_s": 1.92}, {"cpu_s": 0.002, "wall_s": len(MEASURED) / 50}
    )
    assert (figures["p50_ms"], figures["max_ms"], figures["messages"]) == (2.5, 4.0, 4)
    assert figures["tokens_per_s"] == 50.0
    assert figures["server_cpu_s_per_1000"] == 0.5
    assert figures["client_cpu_s_per_1000"] == 0.1


def test_median_round_counts() -> None:
    rounds = [{"p95_ms": p95_ms, "max_ms": p95_ms + 1} for p95_ms in (9.0, 4.0, 5.0)]
    assert streaming._median(rounds) == {"p95_ms": 5.0, "max_ms": 6.0, "p95s_ms": [9.0, 4.0, 5.0]}


@pytest.mark.parametrize(
    ("change", "holds"),
    [({}, True), ({"p95_ms": 6.1}, False), ({"messages": 15_999}, False), ({"tokens_per_s": 45.0}, False)],
)
def test_objective_is_met_only_by_whole_streams_at_their_pace(change: dict[str, float], holds: bool) -> None:
    figures = {"p95_ms": 6.0, "messages": STREAMS * len(MEASURED), "tokens_per_s": 50.0}
    assert streaming._holds(figures | change, 6.0) is holds


async def test_server_process_streams_stamped_tokens_one_a_message() -> None:
    """The real two processes, for the first tokens of one stream."""
    server = await streaming._process("benchmarks.streaming_server", str(STREAMS), stdin=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        port = int(await server.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = channel.unary_stream(
                streaming._METHOD,
                request_serializer=pb.GenerateStreamRequest.SerializeToString,
                response_deserializer=pb.GenerateStreamResponse.FromString,
            )
            params = pb.GenerationParams(max_new_tokens=20)
            reply = ask(
                pb.GenerateStreamRequest(user_prompt="Go on.", params=params), metadata=(("x-tenant-id", "default"),)
            )
            messages = [message async for message in reply]
        stamps = [drawn_ns(message.token.decode()) for message in messages[:-1]]
        assert len(stamps) == 20
        assert stamps == sorted(stamps)
        assert 0 < time.monotonic_ns() - stamps[-1] < 60e9
        assert messages[-1].finish_details.completion_tokens == 20
        rest, _ = await server.communicate(b"")
        assert set(json.loads(rest)) == {"cpu_s", "wall_s"}
    finally:
        await streaming._end(server)
