"""When a TTS is asked to speak: with chunks at each clause and sentence, with token text one token after a sentence."""

from __future__ import annotations

import asyncio

import pytest
from pipecat.frames.frames import AggregatedTextFrame, LLMContextFrame, LLMFullResponseEndFrame, LLMTextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_text_processor import LLMTextProcessor
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.tests.utils import run_test

from tests.runtime.helpers import GatedBackend, running
from voice_llm.pipecat import PassthroughAggregator, VoiceLLMService

from .bot import Recorder, Voice

pytestmark = pytest.mark.unit

_REPLY = "The claim was paid on Monday, and the rest follows. You will get a letter. Goodbye."


async def spoken_after(tokens: int, *, chunks: bool, texts: int) -> list[str]:
    """Return what the voice was asked to say once the model has drawn so many tokens (a token is a letter here).

    Args:
        tokens: How many.
        chunks: The service's mode.
        texts: How many text frames the service has pushed by then.
    """
    voice, recorder = Voice(), Recorder()
    backend = GatedBackend(reply=lambda prompt: _REPLY)
    async with running(backend) as engine:
        llm = VoiceLLMService(engine=engine, chunks=chunks, early_prefill=False)
        parts: list[FrameProcessor] = [llm, voice]
        if chunks:
            parts.insert(1, LLMTextProcessor(text_aggregator=PassthroughAggregator()))
        said: list[str] = []

        async def watch() -> None:
            await backend.held()
            async with asyncio.timeout(10):
                while len(recorder.of(LLMTextFrame)) < texts:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # the voice gets them at once, or only with what is still to come
            said.extend(voice.said)
            backend.release()

        backend.hold(after_tokens=tokens)
        watching = asyncio.create_task(watch())
        context = LLMContext([{"role": "user", "content": "Hi"}])
        await run_test(
            Pipeline(parts), frames_to_send=[LLMContextFrame(context)], observers=[recorder], start_timeout=10
        )
        await watching
    assert " ".join(voice.said) == _REPLY
    return said


async def test_with_chunks_the_first_clause_is_spoken_as_soon_as_it_is_there() -> None:
    clause = "The claim was paid on Monday,"
    assert await spoken_after(len(clause) + 2, chunks=True, texts=1) == [clause]


async def test_with_token_text_the_first_clause_waits_for_the_whole_sentence() -> None:
    clause = "The claim was paid on Monday, and the rest"
    assert await spoken_after(len(clause), chunks=False, texts=len(clause) - clause.count(" ") - 2) == []


@pytest.mark.parametrize("chunks", [True, False], ids=["chunks", "token text"])
async def test_a_sentence_is_spoken_before_the_next_has_come(chunks: bool) -> None:
    until = _REPLY.index("You will get") + 2
    said = await spoken_after(until, chunks=chunks, texts=2 if chunks else until - _REPLY[:until].count(" ") - 2)
    assert " ".join(said) == "The claim was paid on Monday, and the rest follows."


async def test_the_aggregator_neither_splits_nor_joins_nor_holds_back() -> None:
    texts = ["One. Two. ", "three ", "  ", "four?"]
    down, _ = await run_test(
        LLMTextProcessor(text_aggregator=PassthroughAggregator()),
        frames_to_send=[*(LLMTextFrame(t) for t in texts), LLMFullResponseEndFrame()],
    )
    assert [f.text for f in down if isinstance(f, AggregatedTextFrame)] == ["One. Two.", "three", "four?"]
    assert isinstance(down[-1], LLMFullResponseEndFrame)
