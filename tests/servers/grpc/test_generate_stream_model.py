"""A gateway's multi-turn RAG conversation on a real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.grpc.gateway import Reply, serving
from tests.servers.helpers import any_ports
from voice_llm.config import Profile
from voice_llm.runtime import Engine
from voice_llm.servers.edge import Edge
from voice_llm.servers.host import EngineHost

pytestmark = pytest.mark.model

TURNS = (
    ("How high is the deductible?", "The deductible is 150 euros for every claim."),
    ("How do I cancel?", "Contracts can be cancelled in writing by 30 November."),
    ("And how high is the deductible?", ""),
)


async def test_conversation_with_documents_prefills_only_what_is_new(smollm2_path: Path) -> None:
    served = Profile.load("smollm2_135m_demo")

    async def load() -> Engine:
        return await Engine.load(served, model=smollm2_path, sequences=2, context_per_call=1024, threads=1)

    host = EngineHost(load, profile_name=served.name)
    host.start()
    engine = await host.wait_ready()
    edge = Edge.around(host, any_ports())
    replies: list[Reply] = []
    decoded: list[int] = []
    history: list[tuple[str, str]] = []
    async with serving(edge) as gateway:
        for question, document in TURNS:
            before = (await engine.stats()).batcher.prefill_tokens
            reply = await gateway.ask(
                question,
                rag_context=document,
                history=history,
                call_id="c1",
                params={"temperature": 0.0, "max_new_tokens": 40},
            )
            decoded.append((await engine.stats()).batcher.prefill_tokens - before)
            replies.append(reply)
            history += [("user", question), ("assistant", reply.text)]
    await edge.close()
    await host.close()
    # The last question comes without a document: the answer is in what the first one was given.
    assert "150" in replies[0].text
    assert "150" in replies[2].text
    assert all(reply.reason == "stop" and reply.text for reply in replies)
    # The profile's system prompt is in the cache from the start; after it, only the new question is computed.
    assert all(new < 60 for new in decoded), decoded
    assert replies[2].prompt_tokens > sum(decoded)
