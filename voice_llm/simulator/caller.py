"""Caller: one virtual person on the phone, from dialling to hanging up."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ..errors import VoiceLLMError
from .listening import HeardReply
from .results import CallResult, TurnResult
from .script import CallScript
from .targets import ChatMessages, Target, TargetCall

__all__ = ["Caller", "Clock", "Sleep"]

Clock = Callable[[], float]
"""Monotonic seconds."""
Sleep = Callable[[float], Awaitable[object]]
"""Waits that many seconds of the same clock, and lets other tasks run."""

_WORDS_PER_PARTIAL: Final = 3


class Caller:
    """One virtual person on the phone: speaks, waits, listens at speaking rate, thinks, and hangs up.

    Args:
        script: What is said, and how the person behaves.
        target: Who answers.
        call_id: The call's name, for the target and the results.
        clock: Monotonic seconds.
        sleep: Waits on that clock.
        until_s: When the caller hangs up on that clock, once a reply that was asked for before has come.
    """

    def __init__(
        self,
        script: CallScript,
        target: Target,
        call_id: str,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        until_s: float = math.inf,
    ) -> None:
        self._script = script
        self._target = target
        self._call_id = call_id
        self._clock = clock
        self._sleep = sleep
        self._until_s = until_s
        self._turns: list[TurnResult] = []
        self._history: list[dict[str, str]] = []
        if script.system_prompt:
            self._history.append({"role": "system", "content": script.system_prompt})

    async def run(self) -> CallResult:
        """Hold the call, once. What the target does wrong ends the call and is in the result, not raised."""
        started_s = self._clock()
        error: str | None = None
        try:
            call = await self._target.open(self._script, self._call_id)
            hints = _Hints(call)
            try:
                await self._talk(call, hints)
            finally:
                await hints.stop()
                await call.close()
            if hints.error is not None:
                raise hints.error
        except VoiceLLMError as failure:
            error = _describe(failure)
        return CallResult(
            call_id=self._call_id,
            started_s=started_s,
            ended_s=self._clock(),
            turns=tuple(self._turns),
            error=error,
        )

    async def _talk(self, call: TargetCall, hints: _Hints) -> None:
        if self._script.prefill_on_open:
            hints.send(self._asking(""))
        for index, turn in enumerate(self._script.spoken_turns):
            if index and not await self._wait_until(self._clock() + self._script.think_s):
                return
            if not await self._speak(turn.text, hints):
                return
            reply, failed = await self._ask(call, index, self._asking(turn.text), turn.max_tokens)
            if failed or not await self._wait_until(reply.heard_until_s):
                return
            self._history += [
                {"role": "user", "content": turn.text},
                {"role": "assistant", "content": reply.text},
            ]

    async def _speak(self, text: str, hints: _Hints) -> bool:
        """Say something; False where the caller hangs up in the middle of it."""
        started_s = self._clock()
        for partial in self._script.partials_of(text, _WORDS_PER_PARTIAL) if self._script.partials else ():
            if not await self._wait_until(started_s + self._script.speaking_s(partial)):
                return False
            hints.send(self._asking(partial))
        return await self._wait_until(started_s + self._script.speaking_s(text))

    async def _ask(
        self, call: TargetCall, index: int, messages: ChatMessages, max_tokens: int | None
    ) -> tuple[HeardReply, bool]:
        """Have a turn answered and write down how it went; returns the reply and whether it failed."""
        asked_s = self._clock()
        reply = HeardReply(asked_s, self._script.listen_chars_per_s)
        error: str | None = None
        try:
            async for piece in call.turn(messages, max_tokens):
                reply.receive(piece, self._clock())
            reply.end(self._clock())
        except VoiceLLMError as failure:
            error = _describe(failure)
        self._turns.append(
            TurnResult(
                call_id=self._call_id,
                turn=index,
                asked_s=asked_s,
                first_token_ms=_ms_since(asked_s, reply.first_token_s),
                first_speech_ms=_ms_since(asked_s, reply.first_speech_s),
                total_ms=(self._clock() - asked_s) * 1e3,
                gaps=reply.gaps,
                gap_s=reply.gap_s,
                text=reply.text,
                usage=call.usage,
                error=error,
            )
        )
        return reply, error is not None

    def _asking(self, text: str) -> ChatMessages:
        return [*self._history, {"role": "user", "content": text}]

    async def _wait_until(self, time_s: float) -> bool:
        """Wait for a moment on the clock; False where the caller hangs up before it."""
        await self._sleep(max(0.0, min(time_s, self._until_s) - self._clock()))
        return time_s < self._until_s


class _Hints:
    """Prefill hints on their way: the person speaks on and waits for none of them."""

    def __init__(self, call: TargetCall) -> None:
        self._call = call
        self._running: set[asyncio.Task[None]] = set()
        self.error: Exception | None = None
        """The first failure of one."""

    def send(self, messages: ChatMessages) -> None:
        task = asyncio.create_task(self._prefill(messages))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """Give up those that still run."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _prefill(self, messages: ChatMessages) -> None:
        try:
            await self._call.prefill(messages)
        except Exception as error:  # raised at the end of the call: a person who speaks cannot be stopped by it
            self.error = self.error or error


def _describe(error: VoiceLLMError) -> str:
    return f"{error.code}: {error}"


def _ms_since(start_s: float, time_s: float | None) -> float | None:
    return None if time_s is None else (time_s - start_s) * 1e3
