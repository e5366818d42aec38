"""The engine as a target: its own text, its own counts, and nothing left open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from voice_llm.config import Profile, SamplingParams
from voice_llm.config.profile import ModelSource
from voice_llm.errors import AtCapacityError, BackendError, ContextTooLongError, WrongStateError
from voice_llm.runtime import Engine
from voice_llm.simulator import CallerTurn, CallScript, EngineTarget, make_scripts, run_calls
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

SYSTEM = {"role": "system", "content": "Kısa konuş."}
SCRIPT = CallScript(turns=(CallerTurn("Merhaba"),), system_prompt="Kısa konuş.", rag_context="Poliçe NH 1.")
PROFILE = Profile(name="fake", model=ModelSource(path="unused.gguf"))


@asynccontextmanager
async def engine_on(backend: FakeBackend) -> AsyncIterator[Engine]:
    engine = await Engine.start(backend, PROFILE)
    try:
        yield engine
        await engine.check_integrity()
    finally:
        await engine.close()


def question(text: str) -> list[dict[str, str]]:
    return [SYSTEM, {"role": "user", "content": text}]


async def test_a_turn_streams_the_engines_text_and_tells_its_usage() -> None:
    async with engine_on(FakeBackend()) as engine:
        call = await EngineTarget(engine).open(SCRIPT, "c1")
        pieces = [piece async for piece in call.turn(question("Merhaba"), None)]
        usage = call.usage
        await call.close()
    assert "".join(pieces) == "You said Merhaba. That makes 1."
    assert len(pieces) > 1
    assert usage is not None
    assert usage.completion_tokens == len("You said Merhaba. That makes 1.") + 1


async def test_the_rag_context_of_the_script_is_in_the_prompt() -> None:
    async with engine_on(FakeBackend(reply=lambda prompt: "yes." if "Poliçe NH 1." in prompt else "no.")) as engine:
        call = await EngineTarget(engine).open(SCRIPT, "c1")
        assert "".join([piece async for piece in call.turn(question("Merhaba"), None)]) == "yes."
        await call.close()


async def test_what_was_prefilled_is_cached_in_the_turn() -> None:
    async with engine_on(FakeBackend()) as engine:
        call = await EngineTarget(engine).open(SCRIPT, "c1")
        await call.prefill(question("Merhaba, hasar"))
        async with aclosing(call.turn(question("Merhaba, hasar dosyam nerede?"), None)) as pieces:
            assert [piece async for piece in pieces]
        usage = call.usage
        await call.close()
    assert usage is not None
    assert usage.prompt_tokens - usage.cached_tokens < 60


async def test_the_limit_of_a_turn_goes_before_the_targets_sampling() -> None:
    async with engine_on(FakeBackend()) as engine:
        call = await EngineTarget(engine, sampling=SamplingParams(max_tokens=10)).open(SCRIPT, "c1")
        assert "".join([piece async for piece in call.turn(question("Merhaba"), 6)]) == "You sa"
        assert "".join([piece async for piece in call.turn(question("Merhaba"), None)]) == "You said M"
        await call.close()


async def test_leaving_a_turn_stops_it_so_that_the_next_can_be_asked() -> None:
    async with engine_on(FakeBackend(reply=lambda prompt: "a b " * 200)) as engine:
        call = await EngineTarget(engine).open(SCRIPT, "c1")
        async with aclosing(call.turn(question("Merhaba"), None)) as pieces:
            await anext(pieces)
        assert await anext(call.turn(question("Alo?"), None))
        await call.close()
        assert engine.health().open_calls == 0


async def test_a_call_too_many_is_refused() -> None:
    async with engine_on(FakeBackend(sequences=1)) as engine:
        target = EngineTarget(engine)
        call = await target.open(SCRIPT, "c1")
        with pytest.raises(AtCapacityError):
            await target.open(SCRIPT, "c2")
        await call.close()


async def test_a_failed_turn_raises_and_leaves_no_usage_of_an_earlier_one() -> None:
    backend = FakeBackend(context_per_call=600)
    async with engine_on(backend) as engine:
        call = await EngineTarget(engine).open(SCRIPT, "c1")
        assert [piece async for piece in call.turn(question("Merhaba"), None)]
        with pytest.raises(ContextTooLongError):
            [piece async for piece in call.turn(question("uzun " * 500), None)]
        assert call.usage is None
        assert [piece async for piece in call.turn(question("Merhaba"), None)]
        await call.close()
        with pytest.raises(WrongStateError):
            await anext(call.turn(question("Merhaba"), None))
        assert call.usage is None


async def test_callers_hold_their_calls_on_the_engine_and_a_failure_costs_one_call() -> None:
    backend = FakeBackend(sequences=3, context_per_call=8192)
    scripts = make_scripts(1, 6, turns=3)
    async with engine_on(backend) as engine:
        result = await run_calls(EngineTarget(engine), scripts, concurrent=3, speed=1e4)
        assert engine.health().open_calls == 0
        backend.fail_next(BackendError("broken"))
        broken = await run_calls(EngineTarget(engine), [SCRIPT], concurrent=1, speed=1e4)
    assert result.errors == ()
    for script, call in zip(scripts, result.calls, strict=True):
        said = [turn.text for turn in script.turns]
        assert [turn.text for turn in call.turns] == [f"You said {s}. That makes {n}." for n, s in enumerate(said, 1)]
        assert all(turn.first_speech_ms is not None and turn.usage is not None for turn in call.turns)
        assert all(turn.usage and turn.usage.cached_tokens > 500 for turn in call.turns[1:])
    assert len(broken.errors) == 1
