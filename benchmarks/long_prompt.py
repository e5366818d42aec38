"""Eight calls talk, and a prompt of 4,000 tokens arrives: who falls silent?"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from voice_llm.backend import Sampler
from voice_llm.config import SamplingParams
from voice_llm.simulator import CallerTurn, CallScript, EngineTarget, OpenAITarget
from voice_llm.simulator.listening import HeardReply
from voice_llm.simulator.targets import Target, TargetCall

from .common import THREADS, Proof, TalkativeBackend, engine_config, model_path, running_engine
from .peer import PeerServer

_TALKERS: Final = 8
_REPLY_TOKENS: Final = 700
_CONTEXT: Final = 8192
_CHARS_PER_S: Final = 15.0
_TALK_FIRST_S: Final = 3.0
_SCRIPT: Final = CallScript(turns=(CallerTurn("Tell me a very long story about a lighthouse."),))
_STORY: Final = [{"role": "user", "content": _SCRIPT.turns[0].text}]
_LONG: Final = [{"role": "user", "content": " ".join(f"fact {i} is {i * 7}" for i in range(400))}]


@dataclass(slots=True)
class _Talker:
    """One listener: when each piece of the reply came, and how it sounds at speaking rate."""

    asked_s: float
    heard: HeardReply = field(init=False)
    came_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.heard = HeardReply(self.asked_s, _CHARS_PER_S)

    async def listen(self, call: TargetCall) -> None:
        async for piece in call.turn(_STORY, _REPLY_TOKENS):
            now_s = time.monotonic()
            self.came_s.append(now_s)
            self.heard.receive(piece, now_s)


async def beside_talkers() -> list[Proof]:
    """Measure the engine with and without pacing, and llama.cpp's own server, one after the other."""
    voice = await _engine("voice")
    plain = await _engine("off")
    peer = await _peer()
    bound_ms = engine_config().max_step_ms + 20
    return [
        Proof(
            "long_prompt_voice",
            f"a prompt of 4,000 tokens beside {_TALKERS} talking calls: no playback gap",
            voice["prompt_tokens"] >= 4000 and voice["playback_gaps"] == 0,
            {**voice, "peer": peer},
        ),
        Proof(
            "long_prompt",
            "the same without pacing: no call waits longer for a token than one bounded step and 20 ms",
            plain["prompt_tokens"] >= 4000 and plain["longest_token_gap_ms"] <= bound_ms,
            {**plain, "bound_ms": bound_ms, "peer": peer},
        ),
    ]


async def _engine(pacing: str) -> dict[str, Any]:
    config = engine_config(sequences=_TALKERS + 1, context_per_call=_CONTEXT)
    async with running_engine(config, backend_type=_TimedBackend) as engine:
        backend = engine.backend
        assert isinstance(backend, _TimedBackend)
        sampling = SamplingParams(temperature=0.0, pacing=pacing)  # type: ignore[arg-type]
        figures, (from_s, to_s) = await _measure(EngineTarget(engine, sampling=sampling))
        steps = (await engine.stats()).batcher
    talkers = sorted(backend.drawn_s.values(), key=len)[-_TALKERS:]
    gaps_ms = [gap for drawn_s in talkers for gap in _gaps_ms(drawn_s, from_s, to_s)]
    return figures | {
        "longest_token_gap_ms": round(max(gaps_ms, default=0.0), 1),
        "median_token_gap_ms": round(statistics.median(gaps_ms), 1) if gaps_ms else None,
        "longest_step_ms": round(steps.longest_step_ms, 1),
    }


async def _peer() -> dict[str, Any]:
    options = ("--no-kv-unified", "--no-cache-idle-slots", "-fa", "off", "-b", "128")
    with PeerServer(
        model_path(), parallel=_TALKERS + 1, context_per_call=_CONTEXT, threads=THREADS, options=options
    ) as server:
        body = {"temperature": 0, "ignore_eos": True}
        async with OpenAITarget(server.url, "model", options=body) as target:
            figures, _ = await _measure(target)
    return figures


async def _measure(target: Target) -> tuple[dict[str, Any], tuple[float, float]]:
    """Let the calls talk, ask the long question beside them, and see what their callers heard until it was answered."""
    async with _talking(target) as talkers:
        await asyncio.sleep(_TALK_FIRST_S)
        before = [talker.heard.gaps for talker in talkers]
        call = await target.open(_SCRIPT, "long")
        asked_s = time.monotonic()
        first_s = asked_s
        async for _ in call.turn(_LONG, 8):
            first_s = time.monotonic() if first_s == asked_s else first_s
        done_s = time.monotonic()
        for talker in talkers:
            talker.heard.receive(".", done_s)  # a silence that lasts is one, too
        await call.close()
        assert call.usage is not None
        pieces_ms = [gap for talker in talkers for gap in _gaps_ms(talker.came_s, asked_s, done_s)]
        figures = {
            "prompt_tokens": call.usage.prompt_tokens,
            "first_token_s": round(first_s - asked_s, 2),
            "playback_gaps": sum(t.heard.gaps - gaps for t, gaps in zip(talkers, before, strict=True)),
            "silence_s": round(sum(t.heard.gap_s for t in talkers), 2),
            "longest_piece_gap_ms": round(max(pieces_ms, default=0.0), 1),
        }
    return figures, (asked_s, done_s)


@asynccontextmanager
async def _talking(target: Target) -> AsyncIterator[list[_Talker]]:
    """Calls whose callers all hear something already."""
    calls = [await target.open(_SCRIPT, f"talker-{index}") for index in range(_TALKERS)]
    talkers = [_Talker(time.monotonic()) for _ in calls]
    listening = [asyncio.create_task(t.listen(call)) for t, call in zip(talkers, calls, strict=True)]
    try:
        while not all(talker.heard.first_speech_s for talker in talkers):
            await asyncio.sleep(0.05)
        yield talkers
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        for call in calls:
            await call.close()


def _gaps_ms(times_s: list[float], from_s: float, to_s: float) -> list[float]:
    """Return the waits that were not over before, and began before, the long prompt was there."""
    return [(after - before) * 1e3 for before, after in pairwise(times_s) if after >= from_s and before <= to_s]


class _TimedBackend(TalkativeBackend):
    """Notes when each token is drawn; text leaves later, with the word that it belongs to."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.drawn_s: dict[Sampler, list[float]] = {}

    def sample(self, entry_index: int, sampler: Sampler) -> int:
        """See ``Backend``."""
        token = super().sample(entry_index, sampler)
        self.drawn_s.setdefault(sampler, []).append(time.monotonic())
        return token
