"""Pipecat's own OpenAI service, pointed at this server."""

from __future__ import annotations

import pytest
from pipecat.frames.frames import LLMContextFrame, LLMFullResponseEndFrame, LLMFullResponseStartFrame, LLMTextFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.tests.utils import run_test

from .helpers import serving

pytestmark = pytest.mark.unit


async def test_pipecats_openai_service_speaks_through_it_unchanged() -> None:
    async with serving() as served:
        service = OpenAILLMService(
            api_key="unused",
            base_url=f"http://127.0.0.1:{served.port}/v1",
            settings=OpenAILLMService.Settings(
                model="test", system_instruction="You are Ada.", temperature=0.0, max_completion_tokens=100
            ),
        )
        context = LLMContext([{"role": "user", "content": "Merhaba!"}])
        down, _ = await run_test(service, frames_to_send=[LLMContextFrame(context)])
        await service._client.close()
    kinds = [type(frame) for frame in down]
    assert kinds.count(LLMFullResponseStartFrame) == kinds.count(LLMFullResponseEndFrame) == 1
    text = "".join(frame.text for frame in down if isinstance(frame, LLMTextFrame))
    assert text == "You said Merhaba!. That makes 1."
