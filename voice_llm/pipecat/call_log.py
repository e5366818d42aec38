"""CallLog: what happened when in a call, as JSON Lines."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from pipecat.frames.frames import (
    AggregatedTextFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMContextUserTurnFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    MetricsFrame,
    StartFrame,
    StopFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSTextFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import LLMUsageMetricsData
from pipecat.observers.base_observer import BaseObserver, FramePushed
from pipecat.processors.aggregators.llm_response_universal import AssistantTurnStoppedMessage, LLMAssistantAggregator
from pipecat.processors.frame_processor import FrameDirection

__all__ = ["CallLog"]

# Each of these is broadcast as two frames, one up and one down; the one that goes down is noted.
_PLAIN_EVENTS: dict[type[Frame], str] = {
    VADUserStartedSpeakingFrame: "user_speech_started",
    UserStoppedSpeakingFrame: "user_turn_ended",
    BotStartedSpeakingFrame: "bot_speech_started",
    BotStoppedSpeakingFrame: "bot_speech_stopped",
}
_REPLY_EVENTS = ("first_token", "first_chunk", "first_audio")


class CallLog(BaseObserver):
    """Appends one JSON object a line to a file, as things happen; several calls may share the file.

    Every line has ``time_s`` (Unix seconds), ``call_id`` and ``event``. The log holds what caller and bot said.

    Args:
        path: The file; it is made where it does not exist.
        call_id: The call's name in the file.
        assistant: The call's assistant aggregator, from which ``bot_said`` comes.
        **kwargs: For ``BaseObserver``.

    Example:
        ::

            log = CallLog("calls.jsonl", call_id="c1", assistant=aggregators.assistant())
            PipelineWorker(pipeline, observers=[log])
    """

    def __init__(
        self, path: Path | str, *, call_id: str, assistant: LLMAssistantAggregator | None = None, **kwargs: Any
    ) -> None:
        super().__init__(observe_every_push=False, **kwargs)
        self._file = os.open(Path(path).expanduser(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._call_id = call_id
        self._to_unix_s: float | None = None
        self._started = False
        self._ended_s: float | None = None
        self._bot_speaking = False
        self._awaited = set[str]()  # what has not happened yet in the present reply
        if assistant is not None:
            assistant.add_event_handler("on_assistant_turn_stopped", self._note_bot_said)

    async def on_push_frame(self, data: FramePushed) -> None:
        """Note what the first push of a frame tells."""
        time_s = self._unix_time_s(data.timestamp)
        frame, goes_down = data.frame, data.direction is FrameDirection.DOWNSTREAM
        if isinstance(frame, LLMContextFrame):
            if goes_down and isinstance(data.source, LLMAssistantAggregator):
                return  # tells what was said; nobody is to answer it
            self._write(time_s, "llm_started", speculative=frame.speculation)
        elif isinstance(frame, MetricsFrame):
            self._note_usage(time_s, frame)
        elif goes_down:
            self._note_turn(time_s, frame)
            self._note_reply(time_s, frame)
            self._note_call(time_s, frame)

    async def cleanup(self) -> None:
        """Note the end of the call and close the file; once more is harmless."""
        await super().cleanup()
        if self._file >= 0:
            self._write(self._ended_s or time.time(), "call_ended")
            os.close(self._file)
            self._file = -1

    def _note_call(self, time_s: float, frame: Frame) -> None:
        if isinstance(frame, StartFrame) and not self._started:
            self._started = True
            self._write(time_s, "call_started")
        elif isinstance(frame, EndFrame | CancelFrame | StopFrame) and self._ended_s is None:
            # Written last: what was said until now is committed after the frame that ends the call.
            self._ended_s = time_s

    def _note_turn(self, time_s: float, frame: Frame) -> None:
        if event := _PLAIN_EVENTS.get(type(frame)):
            self._write(time_s, event)
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            speech_end_s = frame.timestamp - frame.stop_secs
            self._write(time_s, "user_speech_stopped", speech_end_s=round(speech_end_s, 4))
        elif isinstance(frame, TranscriptionFrame | InterimTranscriptionFrame):
            interim = isinstance(frame, InterimTranscriptionFrame)
            self._write(time_s, "transcript", text=frame.text, interim=interim)
        elif isinstance(frame, LLMContextUserTurnFrame):
            self._write(time_s, "user_said", text=frame.text)
        elif isinstance(frame, InterruptionFrame) and self._bot_speaking:
            self._write(time_s, "interrupted")
            self._bot_speaking = False
        elif isinstance(frame, BotStartedSpeakingFrame | BotStoppedSpeakingFrame):
            self._bot_speaking = isinstance(frame, BotStartedSpeakingFrame)

    def _note_reply(self, time_s: float, frame: Frame) -> None:
        if isinstance(frame, LLMFullResponseStartFrame | TTSSpeakFrame):
            self._awaited = set(_REPLY_EVENTS)
        elif isinstance(frame, LLMTextFrame):
            self._note_first(time_s, "first_token")
        elif isinstance(frame, AggregatedTextFrame) and not isinstance(frame, TTSTextFrame):
            self._note_first(time_s, "first_chunk", text=frame.text)
        elif isinstance(frame, TTSAudioRawFrame):
            self._note_first(time_s, "first_audio")

    def _note_first(self, time_s: float, event: str, **fields: Any) -> None:
        if event in self._awaited:
            self._awaited.remove(event)
            self._write(time_s, event, **fields)

    def _note_usage(self, time_s: float, frame: MetricsFrame) -> None:
        for data in frame.data:
            if isinstance(data, LLMUsageMetricsData):
                self._write(
                    time_s,
                    "usage",
                    prompt_tokens=data.value.prompt_tokens,
                    cached_tokens=data.value.cache_read_input_tokens or 0,
                    completion_tokens=data.value.completion_tokens,
                )

    async def _note_bot_said(self, aggregator: LLMAssistantAggregator, message: AssistantTurnStoppedMessage) -> None:
        if message.content:
            self._write(time.time(), "bot_said", text=message.content, interrupted=message.interrupted)

    def _unix_time_s(self, pipeline_ns: int) -> float:
        """Return when a frame was pushed: observers are told a little later, and not always equally late."""
        now_s = time.time()
        if not pipeline_ns:
            return now_s  # the pipeline's clock has not started
        to_unix_s = now_s - pipeline_ns / 1e9
        self._to_unix_s = to_unix_s if self._to_unix_s is None else min(self._to_unix_s, to_unix_s)
        return pipeline_ns / 1e9 + self._to_unix_s

    def _write(self, time_s: float, event: str, **fields: Any) -> None:
        if self._file < 0:
            return
        line = {"time_s": round(time_s, 4), "call_id": self._call_id, "event": event, **fields}
        # One write of a whole line: lines of calls that share the file never mix.
        os.write(self._file, json.dumps(line, ensure_ascii=False).encode() + b"\n")
