"""The seed's design, re-created: N contexts, and batches with a barrier.

Requests are collected for a few milliseconds, up to one a context. Each of the batch runs on a context of its own, on a
thread of its own, with no shared decode; and the next batch is taken only when the last reply of this one is complete.
A call sticks to no context: the free one whose last prompt has most in common with the new one takes it, and what it
has in common is not computed again. Of a reply nothing is kept.

What is simpler than in the original, or kinder to it: prompts are written with the model's own template and are never
cut; a prompt that is held already is decoded from its last token on, where the original samples stale logits; whole
characters are streamed; decoding is greedy; HTTP with server-sent events is the only interface. There are no adapters,
no grammar and no metrics.

``python -m benchmarks.bench.seed_server --contexts 4 --threads 2`` prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

if __name__ == "__main__":
    # Before the native library is loaded: the threads of many contexts must not spin against each other.
    for _name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        os.environ.pop(_name, None)

from voice_llm.backend import BatchEntry
from voice_llm.backend.llama import LlamaBackend, LlamaModel
from voice_llm.config import EngineConfig, SamplingParams
from voice_llm.text.utf8 import Utf8Decoder

from .workload import common_tokens, formatter_of

_COLLECT_S: Final = 0.005
_CHUNK_TOKENS: Final = 512
_HEADERS: Final = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


@dataclass(eq=False, slots=True)
class Request:
    """A reply that is wanted; ``tell`` is called from another thread with its text, and with None at its end."""

    prompt: Sequence[int]
    max_tokens: int
    tell: Callable[[str | None], object]
    cancelled: bool = False
    cached_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"


@dataclass(eq=False, slots=True)
class Context:
    """One context of the pool, and the prompt that it has seen last."""

    backend: LlamaBackend
    prompt: Sequence[int] = field(default_factory=tuple)

    def run(self, request: Request) -> None:
        """Answer a request to its end."""
        try:
            for text in self._replied(request):
                request.tell(text)
        except Exception:
            request.finish_reason = "error"
            raise
        finally:
            request.tell(None)

    def _replied(self, request: Request) -> Iterator[str]:
        position = self._prefill(request)
        sampler, decoder = self.backend.new_sampler(SamplingParams(temperature=0.0)), Utf8Decoder()
        try:
            while not request.cancelled:
                token = self.backend.sample(0, sampler)
                if self.backend.is_end_of_turn(token):
                    return
                request.completion_tokens += 1
                yield decoder.decode(self.backend.token_bytes(token))
                if request.completion_tokens >= request.max_tokens:
                    request.finish_reason = "length"
                    return
                self.backend.decode([BatchEntry(0, position, [token], True)])
                position += 1
        finally:
            sampler.close()

    def _prefill(self, request: Request) -> int:
        kept = min(common_tokens([self.prompt, request.prompt]), len(request.prompt) - 1)
        if not self.backend.seq_trim(0, kept):
            kept = 0
        request.cached_tokens, self.prompt = kept, ()
        for start in range(kept, len(request.prompt), _CHUNK_TOKENS):
            chunk = request.prompt[start : start + _CHUNK_TOKENS]
            self.backend.decode([BatchEntry(0, start, chunk, start + len(chunk) == len(request.prompt))])
        self.prompt = request.prompt
        return len(request.prompt)


class Batcher:
    """Takes batches, one after the other."""

    def __init__(self, contexts: Sequence[Context]) -> None:
        self._contexts = contexts
        self._waiting: asyncio.Queue[Request] = asyncio.Queue()

    def submit(self, request: Request) -> None:
        """Let a request wait for the next batch."""
        self._waiting.put_nowait(request)

    async def run(self) -> None:
        """Work for ever."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(len(self._contexts)) as threads:
            while True:
                batch = await self._collect()
                pairs = assign(self._contexts, batch)
                # The barrier.
                await asyncio.gather(
                    *(loop.run_in_executor(threads, c.run, r) for c, r in pairs), return_exceptions=True
                )

    async def _collect(self) -> list[Request]:
        batch = [await self._waiting.get()]
        await asyncio.sleep(_COLLECT_S)
        while len(batch) < len(self._contexts) and not self._waiting.empty():
            batch.append(self._waiting.get_nowait())
        return batch


def assign(contexts: Sequence[Context], batch: Sequence[Request]) -> list[tuple[Context, Request]]:
    """Give each request, in order, the free context whose last prompt has most in common with its own."""
    free = list(contexts)
    pairs = []
    for request in batch:
        best = max(free, key=lambda context: common_tokens([context.prompt, request.prompt]))
        free.remove(best)
        pairs.append((best, request))
    return pairs


class Server:
    """OpenAI's chat completions, streamed."""

    def __init__(self, model: LlamaModel, batcher: Batcher, context_tokens: int) -> None:
        self._formatter = formatter_of(model)
        self._batcher = batcher
        self._context_tokens = context_tokens

    async def complete(self, http: web.Request) -> web.StreamResponse:
        """Answer one request."""
        body = await http.json()
        max_tokens = int(body["max_tokens"])
        prompt = self._formatter.format(
            body["messages"], context_tokens=self._context_tokens, reserve_tokens=max_tokens
        ).tokens
        loop, told = asyncio.get_running_loop(), asyncio.Queue[str | None]()
        request = Request(prompt, max_tokens, lambda text: loop.call_soon_threadsafe(told.put_nowait, text))
        response = web.StreamResponse(headers=_HEADERS)
        await response.prepare(http)
        self._batcher.submit(request)
        try:
            while (text := await told.get()) is not None:
                if text:
                    await response.write(_sse({"choices": [{"delta": {"content": text}}]}))
            for event in _end(request):
                await response.write(_sse(event))
            await response.write(b"data: [DONE]\n\n")
        finally:
            request.cancelled = True
        return response


def _end(request: Request) -> Iterator[dict[str, Any]]:
    if request.finish_reason == "error":
        yield {"error": {"message": "the reply failed"}}
        return
    yield {"choices": [{"delta": {}, "finish_reason": request.finish_reason}]}
    yield {
        "choices": [],
        "usage": {
            "prompt_tokens": len(request.prompt),
            "completion_tokens": request.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": request.cached_tokens},
        },
    }


def _sse(event: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


def _contexts(model: LlamaModel, count: int, context_tokens: int, threads: int) -> list[Context]:
    config = EngineConfig(
        sequences=1,
        context_per_call=context_tokens,
        threads=threads,
        threads_batch=threads,
        batch_tokens=_CHUNK_TOKENS,
        micro_batch_tokens=_CHUNK_TOKENS,
        flash_attention="off",
        kv_layout="split",
    )
    return [Context(LlamaBackend(model, config, owns_model=False)) for _ in range(count)]


async def serve(model_path: Path, *, contexts: int, context_tokens: int, threads: int) -> None:
    """Serve on a free port of the loopback, and print it."""
    model = LlamaModel(model_path)
    batcher = Batcher(_contexts(model, contexts, context_tokens, threads))
    app = web.Application()
    app.router.add_post("/v1/chat/completions", Server(model, batcher, context_tokens).complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await batcher.run()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench.seed_server", description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--contexts", type=int, required=True)
    parser.add_argument("--context-tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    asyncio.run(serve(args.model, contexts=args.contexts, context_tokens=args.context_tokens, threads=args.threads))


if __name__ == "__main__":
    main()
