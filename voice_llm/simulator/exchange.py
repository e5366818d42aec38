"""Exchange: one turn answered and listened to, up to where the caller breaks in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from ..errors import VoiceLLMError
from ..events import ToolCall, Usage
from .listening import HeardReply
from .results import TurnResult
from .script import CallScript, Moment
from .targets import ChatMessages, TargetCall

__all__ = ["Clock", "Exchange", "Sleep", "describe"]

Clock = Callable[[], float]
"""Monotonic seconds."""
Sleep = Callable[[float], Awaitable[object]]
"""Waits that many seconds of the same clock, and lets other tasks run."""

# A model that calls tools over and over is stopped.
_MOST_ROUNDS: Final = 4


class Exchange:
    """A reply: asked for, listened to as it comes, and broken off where the caller speaks into it or hangs up.

    Tools that the model calls return what the script says, and the model goes on.

    Args:
        call: Who answers.
        script: Whose tools, and whose ears.
        messages: The history, with the caller's words last.
        max_tokens: Longest reply.
        breaks_off: When the caller breaks in, if that is before the reply has been heard.
        clock: Monotonic seconds.
        sleep: Waits on that clock.

    Attributes:
        broken_off: Whether the caller has broken in.
        stopped_ms: How long the reply went on coming then; None where the caller did not break in.
        error: What went wrong.
    """

    def __init__(
        self,
        call: TargetCall,
        script: CallScript,
        messages: ChatMessages,
        *,
        max_tokens: int | None,
        breaks_off: Moment | None,
        clock: Clock,
        sleep: Sleep,
    ) -> None:
        self._call = call
        self._script = script
        self._asked = [dict(message) for message in messages]
        self._since: list[dict[str, Any]] = []
        self._max_tokens = max_tokens
        self._breaks_off = breaks_off
        self._clock = clock
        self._sleep = sleep
        self._asked_s = clock()
        self._ended_s = self._asked_s
        self._heard = HeardReply(self._asked_s, script.listen_chars_per_s)
        self._calls: list[ToolCall] = []
        self._usage: Usage | None = None
        self._more = asyncio.Event()
        self._begun = False
        self.broken_off = False
        self.stopped_ms: float | None = None
        self.error: str | None = None

    @property
    def heard_until_s(self) -> float:
        """When all of the reply will have been heard."""
        return self._heard.heard_until_s

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What the exchange adds to the history: the question, and of the reply what was heard."""
        said = self._spoken()
        reply = [{"role": "assistant", "content": said}] if said else []
        return [self._asked[-1], *self._since, *reply]

    async def run(self) -> None:
        """Have the turn answered."""
        try:
            if self._breaks_off is None:
                await self._read()
            else:
                await self._read_until(self._breaks_off)
        except VoiceLLMError as failure:
            self.error = describe(failure)
        if not self.broken_off:
            self._ended_s = self._clock()

    def result(self, call_id: str, index: int, spoke_s: float, *, interrupted_ms: float | None = None) -> TurnResult:
        """Return what came of a turn.

        Args:
            call_id: Whose turn it is.
            index: Its number in the call.
            spoke_s: When the caller began to speak.
            interrupted_ms: See ``TurnResult``.
        """
        heard = self._heard
        return TurnResult(
            call_id=call_id,
            turn=index,
            said=self._asked[-1]["content"],
            spoke_s=spoke_s,
            asked_s=self._asked_s,
            heard_until_s=min(heard.heard_until_s, self._ended_s) if self.broken_off else heard.heard_until_s,
            first_token_ms=self._ms_since_asked(heard.first_token_s),
            first_speech_ms=self._ms_since_asked(heard.first_speech_s),
            total_ms=(self._ended_s - self._asked_s) * 1e3,
            gaps=heard.gaps,
            gap_s=heard.gap_s,
            text=heard.text,
            heard=self._spoken(),
            stopped_ms=self.stopped_ms,
            interrupted_ms=interrupted_ms,
            # Under names that are the same in each run.
            tool_calls=tuple(replace(call, tool_call_id=f"call_{n}") for n, call in enumerate(self._calls, 1)),
            usage=self._usage,
            timings=self._call.timings,
            error=self.error,
        )

    async def _read(self) -> None:
        """Take in the reply, and what comes after the tools that it asks for."""
        self._begun = True
        for _ in range(_MOST_ROUNDS):
            try:
                await self._read_round()
            finally:
                # What was asked of tools counts, also where the reply was broken off then.
                calls = self._call.tool_calls
                self._calls += calls
                self._add_usage(self._call.usage)
            if not calls or self._call.runs_tools:
                break
            self._use_tools(calls)
        self._heard.end(self._clock())

    async def _read_round(self) -> None:
        async with aclosing(self._call.turn([*self._asked, *self._since], self._max_tokens)) as pieces:
            async for piece in pieces:
                if not self.broken_off:
                    self._heard.receive(piece, self._clock())
                    self._more.set()

    def _add_usage(self, usage: Usage | None) -> None:
        if usage is not None:
            self._usage = usage if self._usage is None else self._usage + usage

    def _use_tools(self, calls: tuple[ToolCall, ...]) -> None:
        asked = [
            {"id": c.tool_call_id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in calls
        ]
        self._since.append({"role": "assistant", "content": "", "tool_calls": asked})
        for call in calls:
            result = json.dumps(self._script.tool_results.get(call.name), ensure_ascii=False)
            self._since.append({"role": "tool", "tool_call_id": call.tool_call_id, "content": result})

    async def _read_until(self, moment: Moment) -> None:
        """As ``_read``, and break in at a moment, if that comes before the reply has been heard."""
        reading = asyncio.create_task(self._read())
        try:
            while (at_s := self._heard.time_of(moment)) is None or at_s > self._clock():
                if reading.done() and (reading.exception() or at_s is None or at_s >= self.heard_until_s):
                    break
                await self._wait(at_s, reading)
            else:
                await self._break_off(reading)
                return
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _wait(self, until_s: float | None, reading: asyncio.Task[None]) -> None:
        """Wait until that moment, or until more of the reply, or its end, has come."""
        self._more.clear()
        waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._more.wait())}
        if until_s is not None:
            waits.add(asyncio.ensure_future(self._sleep(max(0.0, until_s - self._clock()))))
        try:
            await asyncio.wait({*waits, *(() if reading.done() else (reading,))}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _break_off(self, reading: asyncio.Task[None]) -> None:
        """Speak into the reply: it stops, and only what was heard of it counts."""
        self.broken_off = True
        self._ended_s = self._clock()
        if self._begun:
            await self._call.interrupt(self._spoken())
        if not reading.done():
            reading.cancel()
            await asyncio.wait({reading})  # a cancellation of the caller's own comes through
            if not reading.cancelled():
                reading.result()
        self.stopped_ms = (self._clock() - self._ended_s) * 1e3

    def _spoken(self) -> str:
        return self._heard.heard(self._ended_s) if self.broken_off else self._heard.text

    def _ms_since_asked(self, time_s: float | None) -> float | None:
        return None if time_s is None else (time_s - self._asked_s) * 1e3


def describe(error: VoiceLLMError) -> str:
    """Return an error's code and words."""
    return f"{error.code}: {error}"
