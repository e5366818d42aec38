"""A target whose replies come at known times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from voice_llm.errors import VoiceLLMError
from voice_llm.events import Timings, ToolCall, Usage
from voice_llm.simulator import CallScript, ChatMessages
from voice_llm.testing.virtual_time import run_in_virtual_time

T = TypeVar("T")
Pieces = Sequence[tuple[float, str | VoiceLLMError]]
"""What a reply is made of: seconds after the piece before, and the text or the failure that comes then."""


@dataclass
class Heard:
    """What one call was asked, with the time of each."""

    call_id: str
    script: CallScript
    opened_s: float
    hints: list[tuple[float, ChatMessages]] = field(default_factory=list)
    turns: list[tuple[float, ChatMessages, int | None]] = field(default_factory=list)
    cancelled_hints: int = 0
    interrupted: list[tuple[float, str]] = field(default_factory=list)
    stopped_turns: int = 0
    closed_s: float | None = None


@dataclass
class ScriptedTarget:
    """Gives each turn the next reply of ``replies``, over and over."""

    replies: Sequence[Pieces]
    open_s: float = 0.0
    open_error: Callable[[str], Exception | None] = lambda call_id: None
    hint_s: float = 0.0
    hint_error: Exception | None = None
    close_error: VoiceLLMError | None = None
    usage: Usage | None = None
    calls: list[Heard] = field(default_factory=list)

    async def open(self, script: CallScript, call_id: str) -> ScriptedCall:
        await asyncio.sleep(self.open_s)
        if (error := self.open_error(call_id)) is not None:
            raise error
        heard = Heard(call_id, script, now())
        self.calls.append(heard)
        return ScriptedCall(self, heard)


class ScriptedCall:
    runs_tools = False

    def __init__(self, target: ScriptedTarget, heard: Heard) -> None:
        self._target = target
        self._heard = heard
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.tool_calls: tuple[ToolCall, ...] = ()

    async def prefill(self, messages: ChatMessages) -> None:
        self._heard.hints.append((now(), messages))
        try:
            await asyncio.sleep(self._target.hint_s)
        except asyncio.CancelledError:
            self._heard.cancelled_hints += 1
            raise
        if self._target.hint_error is not None:
            raise self._target.hint_error

    async def turn(self, messages: ChatMessages, max_tokens: int | None) -> AsyncGenerator[str, None]:
        pieces = self._target.replies[len(self._heard.turns) % len(self._target.replies)]
        self._heard.turns.append((now(), messages, max_tokens))
        try:
            for delay_s, piece in pieces:
                await asyncio.sleep(delay_s)
                if isinstance(piece, VoiceLLMError):
                    raise piece
                yield piece
        except (asyncio.CancelledError, GeneratorExit):
            self._heard.stopped_turns += 1
            raise
        self.usage = self._target.usage

    async def interrupt(self, spoken: str) -> None:
        self._heard.interrupted.append((now(), spoken))

    async def close(self) -> None:
        assert self._heard.closed_s is None, "closed twice"
        self._heard.closed_s = now()
        if self._target.close_error is not None:
            raise self._target.close_error


def now() -> float:
    return asyncio.get_running_loop().time()


def virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return run_in_virtual_time(main())
