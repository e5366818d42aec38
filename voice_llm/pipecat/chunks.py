"""PassthroughAggregator: hands each text on as it comes, for replies that are cut into speakable chunks already."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pipecat.utils.text.base_text_aggregator import Aggregation, BaseTextAggregator, TextType

__all__ = ["PassthroughAggregator"]


class PassthroughAggregator(BaseTextAggregator):
    """Turns each ``LLMTextFrame`` into one chunk for the TTS, at once and uncut.

    For ``VoiceLLMService(chunks=True)``, whose texts are clauses and sentences. Splitting them a second time would hold
    each back until the next has begun, and would join a first clause to the rest of its sentence::

        llm, LLMTextProcessor(text_aggregator=PassthroughAggregator()), tts
    """

    @property
    def text(self) -> Aggregation:
        """What is held back: nothing."""
        return Aggregation("", TextType.SENTENCE)

    async def aggregate(self, text: str) -> AsyncIterator[Aggregation]:
        """Yield the text itself, without the white space around it."""
        if chunk := text.strip():
            yield Aggregation(chunk, TextType.SENTENCE)

    async def flush(self) -> Aggregation | None:
        """Return None: nothing is held back."""
        return None

    async def handle_interruption(self) -> None:
        """Do nothing: nothing is held back."""

    async def reset(self) -> None:
        """Do nothing: nothing is held back."""
