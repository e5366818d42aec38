"""Drives a batcher over a fake backend on virtual time; checks integrity after every step."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from voice_llm.config.engine import EngineConfig
from voice_llm.config.sampling import SamplingParams
from voice_llm.engine import CoreEvent, DynamicBatcher, Failed, IsolationKey, LiveCall, Request, RequestKind, TurnWork
from voice_llm.errors import VoiceLLMError
from voice_llm.events import Finished, Prefilled, SentenceChunk, TextDelta
from voice_llm.testing import FakeBackend, VirtualClock
from voice_llm.text import TextPipeline

HEADER = "<|im_start|>assistant\n"


def chat(*said: str, system: str = "") -> str:
    """Write a ChatML prompt: caller and assistant take turns, the caller first; it ends with the assistant's header."""
    text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    for index, content in enumerate(said):
        role = "assistant" if index % 2 else "user"
        text += f"<|im_start|>{role}\n{content}<|im_end|>\n"
    return text + HEADER


class Driver:
    """A batcher, its fake backend, and everything that it has said so far."""

    def __init__(
        self,
        *,
        sequences: int = 4,
        max_calls: int | None = None,
        config: EngineConfig | None = None,
        backend_type: type[FakeBackend] = FakeBackend,
        **backend_options: Any,
    ) -> None:
        self.clock = VirtualClock()
        self.backend = backend_type(sequences=sequences, clock=self.clock, **backend_options)
        self.batcher = DynamicBatcher(self.backend, config or EngineConfig(), clock=self.clock, max_calls=max_calls)
        self.events: dict[Request, list[object]] = defaultdict(list)
        self._opened = 0

    def open(self, tenant: str | None = "acme") -> LiveCall:
        self._opened += 1
        return self.batcher.open_call(f"call-{self._opened}", IsolationKey("fake", "test", tenant))

    def turn(self, call: LiveCall, prompt: str, *, max_tokens: int = 128, stop: tuple[str, ...] = ()) -> Request:
        sampler = self.backend.new_sampler(SamplingParams())
        work = TurnWork(sampler, TextPipeline(stop=stop), max_tokens)
        return self._submit(call, RequestKind.TURN, prompt, work)

    def hint(self, call: LiveCall, prompt: str) -> Request:
        return self._submit(call, RequestKind.PREFILL, prompt, None)

    def _submit(self, call: LiveCall, kind: RequestKind, prompt: str, work: TurnWork | None) -> Request:
        tokens = self.backend.tokenize(prompt, parse_special=True)
        request = Request(call, kind, tokens, self.clock(), work)
        try:
            self.batcher.submit(request)
        except VoiceLLMError:
            if work is not None:
                work.sampler.close()
            raise
        return request

    def step(self) -> list[CoreEvent]:
        out = self.batcher.step()
        self.batcher.check_integrity()
        for request, event in out:
            self.events[request].append(event)
        return out

    def run(self, *, most_steps: int = 3000) -> None:
        """Step until nothing is left to do."""
        for _ in range(most_steps):
            if not self.batcher.has_work:
                return
            self.step()
        raise AssertionError(f"{self.batcher!r} still has work after {most_steps} steps")

    def run_until(self, request: Request, state: str, *, most_steps: int = 3000) -> None:
        for _ in range(most_steps):
            if request.state.value == state:
                return
            self.step()
        raise AssertionError(f"{request!r} is not {state} after {most_steps} steps")

    def say(self, call: LiveCall, prompt: str, *, max_tokens: int = 128, stop: tuple[str, ...] = ()) -> Request:
        """Run a turn to its end."""
        request = self.turn(call, prompt, max_tokens=max_tokens, stop=stop)
        self.run()
        return request

    def text(self, request: Request) -> str:
        return "".join(e.text for e in self.events[request] if isinstance(e, TextDelta))

    def chunks(self, request: Request) -> list[SentenceChunk]:
        return [e for e in self.events[request] if isinstance(e, SentenceChunk)]

    def end(self, request: Request) -> Finished | Prefilled | Failed:
        """Return the request's one last event."""
        ends = [e for e in self.events[request] if isinstance(e, (Finished, Prefilled, Failed))]
        assert len(ends) == 1, f"{request!r} ended {len(ends)} times"
        assert self.events[request][-1] is ends[0]
        return ends[0]

    def finished(self, request: Request) -> Finished:
        end = self.end(request)
        assert isinstance(end, Finished), end
        return end

    def error(self, request: Request) -> VoiceLLMError:
        end = self.end(request)
        assert isinstance(end, Failed), end
        return end.error

    def assert_nothing_is_left(self) -> None:
        """After all calls are closed: no sequence, sampler, parked state or request is left."""
        self.batcher.check_integrity()
        assert not self.batcher.has_work
        assert len(self.batcher.calls) == 0
        assert self.batcher.calls.pool.free == self.backend.info.sequences
        assert self.batcher.calls.parked_bytes == 0
        assert self.backend.open_samplers == 0
        assert [self.backend.seq_length(i) for i in range(self.backend.info.sequences)] == [
            0
        ] * self.backend.info.sequences
