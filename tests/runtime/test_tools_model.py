"""Tools on the packaged model: real calls, honest usage, and what a result is worth."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from voice_llm import Engine, Finished, FinishReason, Profile, Tool, ToolCall
from voice_llm.backend.llama import LlamaBackend, LlamaModel
from voice_llm.config import EngineConfig, ModelSource
from voice_llm.errors import GrammarError

from .helpers import finished_of, read, text_of

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

CONFIG: Final = EngineConfig(
    sequences=2,
    context_per_call=768,
    threads=1,
    threads_batch=1,
    micro_batch_tokens=512,
    flash_attention="off",
    kv_layout="split",
)
SYSTEM: Final = "You are the phone assistant of an insurance company."
CLAIM: Final = Tool(
    "claim_status",
    "Looks up the status of a claim.",
    {"type": "object", "properties": {"claim_number": {"type": "string"}}, "required": ["claim_number"]},
)
WEATHER: Final = Tool(
    "weather",
    "Tells the weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(smollm2_path: Path) -> AsyncIterator[Engine]:
    profile = Profile(name="test", model=ModelSource(path=str(smollm2_path)), system_prompt=SYSTEM, engine=CONFIG)
    started = await Engine.start(LlamaBackend(LlamaModel(smollm2_path), CONFIG), profile)
    yield started
    await started.close()


def asked(text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("choice", "text", "name", "arguments"),
    [
        ("required", "What is the status of my claim 4711?", "claim_status", {"claim_number": "4711"}),
        ("claim_status", "Could you check claim number 908 please?", "claim_status", {"claim_number": "908"}),
        ("weather", "I want to know if it rains in Berlin today.", "weather", {"city": "Berlin"}),
    ],
)
async def test_a_forced_call_has_what_the_caller_said(
    engine: Engine, choice: str, text: str, name: str, arguments: dict[str, str]
) -> None:
    async with engine.open_call() as call:
        events = await read(
            call.generate(asked(text), tools=[CLAIM, WEATHER], tool_choice=choice, temperature=0, max_tokens=80)
        )
    [found, end] = events
    assert isinstance(found, ToolCall)
    assert isinstance(end, Finished)
    assert (found.name, found.arguments) == (name, arguments)
    assert end.reason is FinishReason.TOOL_CALLS


async def test_a_model_that_has_seen_how_opens_a_call_by_itself(engine: Engine) -> None:
    history = asked("What is the status of my claim 908?")
    for number, question in (
        ("908", "What is the status of my claim 83-221?"),
        ("83-221", "What is the status of my claim 4711?"),
    ):
        function = {"name": "claim_status", "arguments": {"claim_number": number}}
        history.append({"role": "assistant", "tool_calls": [{"id": "a", "function": function}]})
        history.append({"role": "tool", "tool_call_id": "a", "content": "paid"})
        history += [{"role": "assistant", "content": "It is paid."}, {"role": "user", "content": question}]
    async with engine.open_call() as call:
        found, end = await read(call.generate(history, tools=[CLAIM], temperature=0, max_tokens=80))
    assert isinstance(found, ToolCall)
    assert (found.name, found.arguments) == ("claim_status", {"claim_number": "4711"})
    assert isinstance(end, Finished)
    assert end.reason is FinishReason.TOOL_CALLS


async def test_after_a_call_only_its_result_is_computed(engine: Engine) -> None:
    history = asked("What is the status of my claim 4711?")
    tools = [CLAIM, WEATHER]
    async with engine.open_call() as call:
        first = await read(call.generate(history, tools=tools, tool_choice="required", temperature=0, max_tokens=80))
        found = first[0]
        assert isinstance(found, ToolCall)
        function = {"name": found.name, "arguments": json.dumps(found.arguments)}
        history.append({"role": "assistant", "tool_calls": [{"id": found.tool_call_id, "function": function}]})
        history.append({"role": "tool", "tool_call_id": found.tool_call_id, "content": "It is paid."})
        before = (await engine.stats()).backend.decoded_tokens
        second = await read(call.generate(history, tools=tools, temperature=0, max_tokens=30))
        decoded = (await engine.stats()).backend.decoded_tokens - before
    usage, earlier = finished_of(second).usage, finished_of(first).usage
    assert usage.cached_tokens == earlier.prompt_tokens + earlier.completion_tokens - 1
    assert usage.prompt_tokens - usage.cached_tokens < 60
    assert decoded == usage.prompt_tokens - usage.cached_tokens + usage.completion_tokens - 1
    assert "paid" in text_of(second)


async def test_a_reply_without_a_call_is_as_before(engine: Engine) -> None:
    async with engine.open_call() as call:
        history = asked("Say hello.")
        free = await read(call.generate(history, tools=[CLAIM], temperature=0, max_tokens=16))
        none = await read(call.generate(history, tools=[CLAIM], tool_choice="none", temperature=0, max_tokens=16))
    assert text_of(free) == text_of(none) != ""
    assert not any(isinstance(event, ToolCall) for event in free)


async def test_the_profiles_prompt_is_shared_whatever_the_tools(engine: Engine) -> None:
    shared = len(engine.backend.tokenize(SYSTEM))
    async with engine.open_call(tenant="another") as call:
        done = await call.prefill(asked("Hello"), tools=[WEATHER])
    assert done.usage.cached_tokens >= shared


async def test_a_tool_that_cannot_be_enforced_fails_its_turn_by_name(engine: Engine) -> None:
    bad = Tool("age", "", {"properties": {"years": {"type": "integer", "minimum": 18}}}, strict=True)
    async with engine.open_call() as call:
        with pytest.raises(GrammarError, match="minimum") as caught:
            await read(call.generate(asked("Hello"), tools=[CLAIM, bad], max_tokens=8))
    assert caught.value.param == "tools[1].parameters"
