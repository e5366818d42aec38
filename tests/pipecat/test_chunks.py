"""When a TTS is asked to speak: with chunks at each clause and sentence, with token text one token after a sentence."""

from __future__ import annotations

import asyncio

import pytest
from pipecat.frames.frames import AggregatedTextFrame, LLMContextFrame, LLMFullResponseEndFrame, LLMTextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_text_processor import LLMTextProcessor
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.tests.utils import SleepFrame, run_test

from tests.runtime.helpers import GatedBackend, running
from voice_llm.pipecat import PassthroughAggregator, VoiceLLMService

from .bot import Voice

pytestmark = pytest.mark.unit

_REPLY = "The claim was paid on Monday, and the rest follows. You will get a letter. Goodbye."


async def spoken_after(tokens: int, *, chunks: bool) -> list[str]:
    """Return what the voice was asked to say once the model has drawn so many tokens (a token is a letter here)."""
    voice = Voice()
    backend = GatedBackend(reply=lambda prompt: _REPLY)
    async with running(backend) as engine:
        llm = VoiceLLMService(engine=engine, chunks=chunks, early_prefill=False)
        parts: list[FrameProcessor] = [llm, voice]
        if chunks:
            parts.insert(1, LLMTextProcessor(text_aggregator=PassthroughAggregator()))
        said: list[str] = []

        async def watch() -> None:
            await backend.held()
            await asyncio.sleep(0.2)
            said.extend(voice.said)
            backend.release()

        backend.hold(after_tokens=tokens)
        watching = asyncio.create_task(watch())
        context = LLMContext([{"role": "user", "content": "Hi"}])
        await run_test(Pipeline(parts), frames_to_send=[LLMContextFrame(context), SleepFrame(0.5)])
        await watching
    assert " ".join(voice.said) == _REPLY
    return said


async def test_with_chunks_the_first_clause_is_spoken_as_soon_as_it_is_there() -> None:
    clause = "The claim was paid on Monday,"
    assert await spoken_after(len(clause) + 2, chunks=True) == [clause]


async def test_with_token_text_the_first_clause_waits_for_the_whole_sentence() -> None:
    assert await spoken_after(len("The claim was paid on Monday, and the rest"), chunks=False) == []


@pytest.mark.parametrize("chunks", [True, False], ids=["chunks", "token text"])
async def test_a_sentence_is_spoken_before_the_next_has_come(chunks: bool) -> None:
    until = _REPLY.index("You will get") + 2
    said = await spoken_after(until, chunks=chunks)
    assert " ".join(said) == "The claim was paid on Monday, and the rest follows."


async def test_the_aggregator_neither_splits_nor_joins_nor_holds_back() -> None:
    texts = ["One. Two. ", "three ", "  ", "four?"]
    down, _ = await run_test(
        LLMTextProcessor(text_aggregator=PassthroughAggregator()),
        frames_to_send=[*(LLMTextFrame(t) for t in texts), LLMFullResponseEndFrame()],
    )
    assert [f.text for f in down if isinstance(f, AggregatedTextFrame)] == ["One. Two.", "three", "four?"]
    assert isinstance(down[-1], LLMFullResponseEndFrame)
