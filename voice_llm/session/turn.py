"""RunningTurn: one turn from its question to its end, over as many rounds as its reply asks for tools."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..config import SamplingParams
from ..errors import AtCapacityError, InvalidRequestError, VoiceLLMError, WrongStateError
from ..events import Finished, FinishReason, GenerateEvent, SentenceChunk, Thought, Timings, ToolCall, Usage
from ..prompt import Message, ToolChoice
from ..runtime import ReplyStream
from .events import CallError, CallThought, CallToolCall, Chunk, SessionEvent, TurnEnd
from .history import Playback

__all__ = ["RunningTurn", "TurnRequest"]

logger = logging.getLogger(__name__)

_MAX_TOOL_ROUNDS: Final = 8
# An error may quote what it is about, and that may be as long as a request.
_MAX_ERROR_CHARS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """What a turn was asked with.

    Attributes:
        turn_id: The transport's name for it.
        question: What the caller said.
        params: How the reply is drawn.
        tool_choice: Which tools it may or must ask for.
        rag_context: The call's retrieved text when it was asked.
        arrival_s: When it reached our edge.
    """

    turn_id: str
    question: Message
    params: SamplingParams
    tool_choice: ToolChoice
    rag_context: str | None
    arrival_s: float


@dataclass(slots=True, eq=False)
class _Round:
    """One reply of the model: words, then perhaps calls of tools, whose results begin the next round."""

    stream: ReplyStream
    began_s: float
    first_chunk: int
    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    results: dict[str, Message] = field(default_factory=dict)

    @property
    def finished(self) -> Finished | None:
        return self.stream.finished

    @property
    def open_calls(self) -> list[str]:
        return [c.tool_call_id for c in self.calls if c.tool_call_id not in self.results]


class RunningTurn:
    """A turn in the making.

    Args:
        request: What it was asked with.
        playback: Says how much of it was heard.
        held: Whether it is speculative: nothing of it is told before it is released.

    Attributes:
        settled: Set once its reply stands in the history, or will never.
        discarded: Set where a speculative turn is thrown away.
    """

    def __init__(self, request: TurnRequest, playback: Playback, *, held: bool = False) -> None:
        self.request = request
        self.playback = playback
        self.settled = False
        self.discarded = False
        self._barged_in = False
        self._rounds: list[_Round] = []
        self._chunks = 0
        self._forced = request.tool_choice not in ("auto", "none")
        self._news = asyncio.Event()
        self._held = held

    def __repr__(self) -> str:
        state = "held" if self._held else "settled" if self.settled else "running"
        return f"<RunningTurn {self.turn_id} [{state} | rounds: {len(self._rounds)}]>"

    @property
    def turn_id(self) -> str:
        """The transport's name for it."""
        return self.request.turn_id

    @property
    def question(self) -> Message:
        """What the caller said."""
        return self.request.question

    @property
    def held(self) -> bool:
        """Whether it waits to be confirmed."""
        return self._held

    @property
    def stream(self) -> ReplyStream:
        """The reply of its present round."""
        return self._rounds[-1].stream

    @property
    def tool_choice(self) -> ToolChoice:
        """What the next round may ask for: a choice that forces a call is met by the first."""
        if len(self._rounds) >= _MAX_TOOL_ROUNDS:
            return "none"
        return "auto" if self._forced and self._rounds else self.request.tool_choice

    @property
    def next_messages(self) -> list[Message]:
        """What the next round's prompt has behind the history: the question, or what was said since."""
        return self.reply(self.playback.text) if self._rounds else [self.question]

    @property
    def is_first_round(self) -> bool:
        """Whether no tool was asked for so far."""
        return len(self._rounds) == 1

    def go_on(self, stream: ReplyStream, now_s: float) -> None:
        """Begin a round."""
        self._rounds.append(_Round(stream, now_s, self._chunks))

    def release(self) -> None:
        """Let a held turn speak, or let whoever waits for it see that it is discarded."""
        self._held = False
        self._news.set()

    def played(self, index: int, played_ms: int) -> None:
        """Note that the caller has heard chunk ``index`` for ``played_ms``, and all before it."""
        self.playback.played(index, played_ms)
        present = self._rounds[-1]
        if index >= present.first_chunk:
            present.stream.played(index - present.first_chunk, played_ms)

    def barge_in(self, heard: str, *, running: bool) -> bool:
        """Note that the caller spoke over it; returns whether so for the first time.

        No word was cut off where it is no longer being made, and all of it had been heard.
        """
        first = not self._barged_in and (running or heard.strip() != self.playback.text.strip())
        self._barged_in |= first
        return first

    def settle(self) -> None:
        """Note that nothing more of it is told."""
        self.settled = True
        self._news.set()

    async def until_released(self) -> None:
        """Wait while it is held."""
        while self._held:
            self._news.clear()
            await self._news.wait()

    async def until_answered(self) -> None:
        """Wait until the results of all tools of this round are in, or the turn is settled."""
        while self._rounds[-1].open_calls and not self.settled:
            self._news.clear()
            await self._news.wait()

    def tool_result(self, tool_call_id: str, result: Any) -> None:
        """Take what a tool returned; any JSON value.

        Raises:
            WrongStateError: No call of that id is open.
            InvalidRequestError: The result cannot be written as JSON.
        """
        if tool_call_id not in self._rounds[-1].open_calls:
            raise WrongStateError("no tool call of that id waits for a result")
        self._rounds[-1].results[tool_call_id] = Message("tool", _as_text(result), tool_call_id=tool_call_id)
        self._news.set()

    def tell(self, event: GenerateEvent) -> SessionEvent | None:
        """Return what the other side is told of an event; None for nothing."""
        present = self._rounds[-1]
        if isinstance(event, SentenceChunk):
            return self._chunk(present, event)
        if isinstance(event, Thought):
            return CallThought(self.turn_id, event.text)
        if isinstance(event, ToolCall):
            present.calls.append(event)
            return CallToolCall(self.turn_id, event.tool_call_id, event.name, event.arguments)
        return None

    async def told(self, go_on: Callable[[RunningTurn], None]) -> AsyncGenerator[SessionEvent, None]:
        """Tell its rounds as they are made.

        Args:
            go_on: Begins the next round, once the results of all tools of the present one are in.

        Raises:
            VoiceLLMError: A round has failed.
        """
        while True:
            async for event in self.stream:
                # What was on its way when the caller interrupted is neither spoken nor kept.
                told = None if self.settled else self.tell(event)
                if told is not None:
                    yield told
            await self.until_answered()
            if self.settled or not self._rounds[-1].calls:
                return
            go_on(self)

    def failure(self, error: VoiceLLMError) -> CallError:
        """Return what the other side is told of an error that ends the turn."""
        retry_after_s = error.retry_after_s if isinstance(error, AtCapacityError) else None
        return CallError(error.code, _for_peers(error), retry_after_s, turn_id=self.turn_id)

    def _chunk(self, present: _Round, event: SentenceChunk) -> Chunk:
        text, final = event.text, event.final
        if final and (present.finished is None or present.finished.reason is FinishReason.TOOL_CALLS):
            # The last words before a tool call: the end of the reply would have come in the same step.
            final = False
            text = text if text[-1:].isspace() else f"{text} "
        present.text += text
        self.playback.sent(text)
        self._chunks += 1
        return Chunk(self.turn_id, self._chunks - 1, text, final)

    def forget_tools(self) -> None:
        """Leave calls and results out of the history: with them there is no going on."""
        for present in self._rounds:
            present.calls.clear()
            present.results.clear()

    def reply(self, heard: str) -> list[Message]:
        """Return what the history keeps of it: the words that were heard, and tool calls with their results."""
        messages: list[Message] = []
        for present in self._rounds:
            words, rest = heard, ""
            if present is not self._rounds[-1] and heard.lstrip().startswith(present.text.strip()):
                words, rest = present.text, heard.lstrip()[len(present.text.strip()) :]
            heard = rest
            calls = tuple(call for call in present.calls if call.tool_call_id in present.results)
            if words.strip() or calls:
                messages.append(Message("assistant", words.strip(), tool_calls=calls))
            messages += [present.results[call.tool_call_id] for call in calls]
        return messages

    def end(self, reason: FinishReason | None = None) -> TurnEnd:
        """Return its last event, with ``reason`` in place of the model's own."""
        ended = [present for present in self._rounds if present.finished is not None]
        usage = sum((p.finished.usage for p in ended if p.finished), Usage())
        last = self._rounds[-1].finished
        return TurnEnd(
            self.turn_id, reason or (last.reason if last else FinishReason.ERROR), usage, self._timings(ended)
        )

    def _timings(self, ended: Sequence[_Round]) -> Timings:
        """Times since the turn's arrival: of its first round, but for a first chunk that only a later one brought."""
        if not ended or ended[0].finished is None:
            return Timings()
        first = ended[0].finished.timings
        first_chunks_ms = (self._since_arrival(present, "first_chunk_ms") for present in ended)
        return Timings(
            queue_ms=first.queue_ms,
            prefill_ms=first.prefill_ms,
            first_token_ms=first.first_token_ms,
            first_chunk_ms=next((time_ms for time_ms in first_chunks_ms if time_ms is not None), None),
            total_ms=self._since_arrival(ended[-1], "total_ms"),
        )

    def _since_arrival(self, ended: _Round, name: str) -> float | None:
        time_ms: float | None = getattr(ended.finished.timings, name) if ended.finished else None
        return None if time_ms is None else (ended.began_s - self.request.arrival_s) * 1e3 + time_ms


def _as_text(result: Any) -> str:
    try:
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequestError("the result cannot be written as JSON", param="result") from None
    return text


def _for_peers(error: VoiceLLMError) -> str:
    """Return what the other side may read: an internal error's detail is for the log alone."""
    if error.code != VoiceLLMError.code:
        return str(error)[:_MAX_ERROR_CHARS]
    logger.error("a turn failed: %s", type(error).__name__, exc_info=error)
    return "the engine failed; its log says why"
