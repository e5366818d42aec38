"""EarlyPrefill: the caller's words go into the KV cache while they are being spoken."""

from __future__ import annotations

from typing import Any

from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from .service import VoiceLLMService

__all__ = ["EarlyPrefill"]


class EarlyPrefill(FrameProcessor):
    """Shows partial transcripts to the service, between STT and the user aggregator, which consumes them.

    Every interim and every finalized transcript of the running turn becomes a hint of what the next prompt will be. A
    hint that turns out wrong costs nothing but idle time: the cache is rolled back to what the prompts share.

    Args:
        llm: The service of the same call.
        **kwargs: For ``FrameProcessor``.
    """

    def __init__(self, llm: VoiceLLMService, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._llm = llm
        self._segments: list[str] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Look at transcripts and turn ends; every frame goes on at once."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, UserStoppedSpeakingFrame):
            self._segments.clear()
        elif isinstance(frame, TranscriptionFrame):
            self._segments.append(frame.text)
            self._llm.prefill_user_text(" ".join(self._segments))
        elif isinstance(frame, InterimTranscriptionFrame):
            self._llm.prefill_user_text(" ".join([*self._segments, frame.text]))
