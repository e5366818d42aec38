"""Eager turns: the reply is begun at the first transcript of a pause, and spoken once the turn has surely ended."""

from __future__ import annotations

import asyncio
import copy
from typing import Any, Final

from pipecat.audio.turn.base_turn_analyzer import BaseTurnAnalyzer
from pipecat.audio.turn.smart_turn.base_smart_turn import SmartTurnParams
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    Frame,
    InterruptionFrame,
    LLMMessagesAppendFrame,
    LLMMessagesTransformFrame,
    LLMMessagesUpdateFrame,
    LLMRunFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.turns.types import ProcessFrameResult, UserTurnSpeculation
from pipecat.turns.user_stop import TurnAnalyzerUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies

__all__ = ["EagerTurnStopStrategy", "eager_turn_strategies"]

# What takes a held reply away, or has another one begun: it can no longer be the turn's answer.
_VOIDING: Final = (
    EagerEndOfTurnCancelFrame,
    InterruptionFrame,
    LLMMessagesAppendFrame,
    LLMMessagesTransformFrame,
    LLMMessagesUpdateFrame,
    LLMRunFrame,
)


class EagerTurnStopStrategy(TurnAnalyzerUserTurnStopStrategy):
    """Ends turns as Pipecat's default does, and has the reply begun while that is still being decided.

    A finalized transcript in a pause starts generation on a copy of the context. The service holds the reply back until
    the turn ends with that same text, which confirms it; speech that goes on, more text, or a tool call withdraws it.

    Args:
        turn_analyzer: Decides whether a pause is the end of the turn.
        **kwargs: For ``TurnAnalyzerUserTurnStopStrategy``.
    """

    def __init__(self, *, turn_analyzer: BaseTurnAnalyzer, **kwargs: Any) -> None:
        super().__init__(turn_analyzer=turn_analyzer, **kwargs)
        self._segments: list[str] = []
        self._in_pause = False
        self._speculation: UserTurnSpeculation | None = None
        self._deciding: asyncio.Task[None] | None = None
        self._ending = False

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        """Follow speech and transcripts; always CONTINUE."""
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            self._in_pause = True
            await self._decide(frame)
            return ProcessFrameResult.CONTINUE
        if isinstance(frame, VADUserStartedSpeakingFrame):
            self._in_pause = False
            await self._cancel_decision()
            await self._withdraw()
        elif isinstance(frame, _VOIDING):
            self._speculation = None  # the service has withdrawn it, or does so at this very frame
        elif isinstance(frame, TranscriptionFrame):
            self._segments.append(frame.text)
            if not self._in_pause:
                # Late, and of an earlier stretch of speech: it must not stand for the one that is being spoken.
                frame = copy.copy(frame)
                frame.finalized = False
        result = await super().process_frame(frame)
        if isinstance(frame, TranscriptionFrame) and frame.finalized and self._in_pause:
            await self._speculate()
        return result

    async def trigger_user_turn_stopped(self, *, enable_user_speaking_frames: bool | None = None) -> None:
        """End the turn: with the reply that was begun, where it answers all that was said."""
        self._ending = True  # speech that begins now belongs to the next turn
        try:
            await self._end_turn(enable_user_speaking_frames)
        finally:
            self._ending = False

    async def _end_turn(self, enable_user_speaking_frames: bool | None) -> None:
        speculation, self._speculation = self._speculation, None
        if speculation is not None and speculation.text == self._turn_text():
            await self.trigger_user_turn_finalized(
                enable_user_speaking_frames=enable_user_speaking_frames, confirms_speculation=True
            )
            return
        if speculation is not None:
            await self.trigger_user_turn_speculation_cancelled()
        await super().trigger_user_turn_stopped(enable_user_speaking_frames=enable_user_speaking_frames)

    async def handle_user_turn_started(self) -> None:
        """Withdraw what an unresolved turn left behind."""
        await self._withdraw()
        await super().handle_user_turn_started()

    async def handle_user_turn_stopped(self) -> None:
        """Forget the turn's text; a reply that nothing has confirmed is withdrawn."""
        self._segments.clear()
        await self._withdraw()
        await super().handle_user_turn_stopped()

    async def cleanup(self) -> None:
        """Stop deciding."""
        await self._cancel_decision()
        await super().cleanup()

    async def _decide(self, frame: VADUserStoppedSpeakingFrame) -> None:
        """Ask the turn detector beside the aggregator's own task, which else would not see the transcript meanwhile."""
        await self._cancel_decision()

        async def decide() -> None:
            await super(EagerTurnStopStrategy, self).process_frame(frame)

        self._deciding = self.task_manager.create_task(decide(), f"{self}::decide")

    async def _cancel_decision(self) -> None:
        task, self._deciding = self._deciding, None
        if task is None or task is asyncio.current_task():
            return
        if self._ending:
            await asyncio.wait({task})  # half an end would leave a reply running in a turn that never closes
        else:
            await self.task_manager.cancel_task(task)

    async def _speculate(self) -> None:
        """Have the reply begun, unless the transcript has just ended the turn."""
        text = self._turn_text()
        if not text or (self._speculation is not None and self._speculation.text == text):
            return
        await self._withdraw()
        self._speculation = UserTurnSpeculation(text=text)
        await self.trigger_user_turn_inference_triggered(speculation=self._speculation)

    async def _withdraw(self) -> None:
        if self._speculation is not None:
            self._speculation = None
            await self.trigger_user_turn_speculation_cancelled()

    def _turn_text(self) -> str:
        return " ".join(" ".join(self._segments).split())


def eager_turn_strategies(*, silence_s: float = 3.0) -> UserTurnStrategies:
    """Return Pipecat's default turn strategies with an eager stop; loads the turn detector, so not on an event loop.

    Args:
        silence_s: Seconds of silence that end a turn which sounds unfinished; 3 is Pipecat's default.
    """
    from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3

    analyzer = LocalSmartTurnAnalyzerV3(params=SmartTurnParams(stop_secs=silence_s))
    return UserTurnStrategies(stop=[EagerTurnStopStrategy(turn_analyzer=analyzer)])
