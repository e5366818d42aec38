"""HTTP on a real model: formats and tools are forced, and a conversation costs what is new."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.servers.helpers import any_ports
from voice_llm.runtime import Engine
from voice_llm.servers.edge import Edge
from voice_llm.servers.host import EngineHost

from .helpers import Served, on

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Served]:
    async def load() -> Engine:
        return await Engine.load("smollm2_135m_demo", threads=1, sequences=2)

    host = EngineHost(load, profile_name="smollm2_135m_demo")
    host.start()
    await host.wait_ready()
    edge = Edge.around(host, any_ports())
    try:
        async with on(edge) as served:
            yield served
    finally:
        await edge.close()
        await host.close()


async def test_a_conversation_is_streamed_and_its_second_turn_costs_what_is_new(served: Served) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the deductible for water damage?"}]
    usages = []
    for question in ("And who pays it?", ""):
        stream = await served.openai.chat.completions.create(
            model="smollm2_135m_demo", messages=messages, temperature=0, max_tokens=24, stream=True,
            stream_options={"include_usage": True}, extra_headers={"x-call-id": "call-1"},
            extra_body={"rag_context": "Water damage is covered. The deductible is 150 euros."},
        )  # fmt: skip
        text = ""
        async for piece in stream:
            text += piece.choices[0].delta.content or "" if piece.choices else ""
            if piece.usage is not None:
                usages.append(piece.usage)
        assert text
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": question}]
    details = usages[1].prompt_tokens_details
    assert details is not None
    assert details.cached_tokens is not None
    assert details.cached_tokens > usages[0].prompt_tokens
    assert usages[1].prompt_tokens - details.cached_tokens < 30


async def test_a_json_schema_is_kept_to_and_one_that_cannot_be_is_refused(served: Served) -> None:
    schema = {
        "type": "object",
        "properties": {"status": {"enum": ["open", "paid"]}, "urgent": {"type": "boolean"}},
        "required": ["status", "urgent"],
        "additionalProperties": False,
    }
    ask: Any = {"model": "smollm2_135m_demo", "temperature": 0, "messages": [{"role": "user", "content": "Claim?"}]}
    create = served.openai.chat.completions.create
    form: Any = {"type": "json_schema", "json_schema": {"name": "claim", "strict": True, "schema": schema}}
    reply = await create(**ask, response_format=form)
    found = json.loads(reply.choices[0].message.content or "")
    assert found["status"] in ("open", "paid")
    assert isinstance(found["urgent"], bool)
    status, body = await served.ask(
        ask | {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "number", "minimum": 3}}}}
    )
    assert (status, body["error"]["code"]) == (400, "invalid_request")
    assert "minimum" in body["error"]["message"]


async def test_a_required_tool_is_asked_for_with_arguments_that_match(served: Served) -> None:
    tool: Any = {
        "type": "function",
        "function": {
            "name": "claim_status",
            "parameters": {
                "type": "object",
                "properties": {"kind": {"enum": ["water", "fire"]}},
                "required": ["kind"],
                "additionalProperties": False,
            },
        },
    }
    reply = await served.openai.chat.completions.create(
        model="smollm2_135m_demo", temperature=0, tools=[tool],
        tool_choice={"type": "function", "function": {"name": "claim_status"}},
        messages=[{"role": "user", "content": "What of my water damage?"}],
    )  # fmt: skip
    assert reply.choices[0].finish_reason == "tool_calls"
    [call] = reply.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert json.loads(call.function.arguments)["kind"] in ("water", "fire")
