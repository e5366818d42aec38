"""What an observer is told of steps, tokens, turns and cancels."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from tests.runtime.helpers import GatedBackend, running
from voice_llm.errors import BackendError, ContextTooLongError, InvalidRequestError, VoiceLLMError
from voice_llm.events import FinishReason, Timings, Usage
from voice_llm.observer import Observer
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

HELLO = [{"role": "user", "content": "Hello?"}]


@dataclass
class Told(Observer):
    steps: list[tuple[str, int]] = field(default_factory=list)
    tokens: int = 0
    ended: list[tuple[FinishReason, Usage]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    cancels: list[float] = field(default_factory=list)
    prefills: list[Usage] = field(default_factory=list)

    def step(self, kind: str, rows: int, took_s: float) -> None:
        assert took_s >= 0
        self.steps.append((kind, rows))

    def token(self, gap_s: float) -> None:
        assert gap_s >= 0
        self.tokens += 1

    def turn_ended(self, reason: FinishReason, usage: Usage, timings: Timings) -> None:
        self.ended.append((reason, usage))

    def turn_failed(self, code: str) -> None:
        self.failed.append(code)

    def prefilled(self, usage: Usage, took_s: float) -> None:
        self.prefills.append(usage)

    def cancelled(self, latency_s: float) -> None:
        self.cancels.append(latency_s)


async def test_a_turn_is_told_with_its_tokens_and_steps() -> None:
    told = Told()
    async with running(observer=told) as engine, engine.open_call() as call:
        told.steps.clear()  # the warm-up's
        stream = call.generate(HELLO)
        async for _ in stream:
            pass
        assert stream.finished is not None
        usage = stream.finished.usage
    assert told.ended == [(FinishReason.STOP, usage)]
    assert told.tokens == usage.completion_tokens - 1, "gaps lie between tokens"
    assert sum(rows for kind, rows in told.steps if kind == "prefill") == usage.prompt_tokens - usage.cached_tokens
    assert sum(rows for kind, rows in told.steps if kind == "decode") == usage.completion_tokens - 1
    assert told.failed == []


async def test_a_prefill_is_told() -> None:
    told = Told()
    async with running(observer=told) as engine, engine.open_call() as call:
        done = await call.prefill(HELLO)
    assert told.prefills == [done.usage]
    assert told.ended == []


@pytest.mark.parametrize(
    ("messages", "error"),
    [([{"role": "nobody", "content": "x"}], InvalidRequestError), ([{"role": "user", "content": "x " * 9000}], None)],
)
async def test_a_turn_that_fails_before_it_reaches_the_engine_is_told(
    messages: list[dict[str, str]], error: type[VoiceLLMError] | None
) -> None:
    told = Told()
    async with running(observer=told) as engine, engine.open_call() as call:
        with pytest.raises(error or ContextTooLongError) as caught:
            async for _ in call.generate(messages):
                pass
    assert told.failed == [caught.value.code]


async def test_a_turn_that_fails_in_the_engine_is_told_once() -> None:
    told, backend = Told(), FakeBackend()
    async with running(backend, observer=told) as engine, engine.open_call() as call:
        backend.fail_next(BackendError("decode returned -3"))
        with pytest.raises(BackendError):
            async for _ in call.generate(HELLO):
                pass
    assert told.failed == ["internal"]
    assert told.ended == []


async def test_a_cancel_is_told_with_its_latency() -> None:
    told, backend = Told(), GatedBackend()
    async with running(backend, observer=told) as engine, engine.open_call() as call:
        backend.hold()
        stream = call.generate(HELLO)
        await backend.held()
        stream.cancel()
        backend.release()
        async for _ in stream:
            pass
    assert len(told.cancels) == 1
    assert told.cancels[0] >= 0
    assert [reason for reason, _ in told.ended] == [FinishReason.CANCELLED]


async def test_prompts_that_were_given_up_are_not_prepared() -> None:
    """A queue of long prompts whose readers are gone must not keep the next caller waiting."""
    told = Told()
    async with running(observer=told) as engine, engine.open_call() as call, engine.open_call() as other:
        prepared: list[str] = []
        tokenize = engine.backend.tokenize

        def noting(text: str, *, parse_special: bool = False) -> list[int]:
            prepared.append(text)
            return tokenize(text, parse_special=parse_special)

        engine.backend.tokenize = noting  # type: ignore[method-assign]
        gate = threading.Event()
        engine._prompts.submit(gate.wait, 20)
        for _ in range(3):
            stream = call.generate([{"role": "user", "content": "given up"}])
            stream.cancel()
        gate.set()
        async for _ in stream:
            pass
        async for _ in other.generate(HELLO):
            pass
    assert not any("given up" in text for text in prepared)
    assert any("Hello?" in text for text in prepared)
