"""Caller: one virtual person on the phone, from dialling to hanging up."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from typing import Any

from ..errors import VoiceLLMError
from .exchange import Clock, Exchange, Sleep, describe
from .hints import Hints
from .results import CallResult, TurnResult
from .script import CallerTurn, CallScript
from .speaking import Speaking
from .targets import ChatMessages, Target, TargetCall

__all__ = ["Caller", "Clock", "Sleep"]

OnTurn = Callable[[TurnResult], bool]
"""Is told of each turn; False lets the caller hang up."""


class Caller:
    """One virtual person on the phone: speaks, waits, listens at speaking rate, thinks, breaks in, and hangs up.

    Args:
        script: What is said, and how the person behaves.
        target: Who answers.
        call_id: The call's name, for the target and the results.
        clock: Monotonic seconds.
        sleep: Waits on that clock.
        until_s: When the caller hangs up on that clock, once a reply that was asked for before has come.
        on_turn: Is told of each turn; where it returns False, the caller hangs up.
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
        on_turn: OnTurn = lambda turn: True,
    ) -> None:
        self._script = script
        self._target = target
        self._call_id = call_id
        self._clock = clock
        self._sleep = sleep
        self._until_s = until_s
        self._on_turn = on_turn
        # Seeded by the words, so that a run can be repeated whatever the call is named.
        self._rng = random.Random(script.turns[0].text)
        self._turns: list[TurnResult] = []
        self._interrupted_ms: float | None = None
        self._history: list[dict[str, Any]] = [dict(message) for message in script.history]
        if script.system_prompt:
            self._history.insert(0, {"role": "system", "content": script.system_prompt})

    async def run(self) -> CallResult:
        """Hold the call, once. What the target does wrong ends the call and is in the result, not raised."""
        started_s = self._clock()
        error: str | None = None
        try:
            call = await self._target.open(self._script, self._call_id)
            hints = Hints(call)
            try:
                await self._talk(call, hints)
            finally:
                await hints.stop()
                await call.close()
            if hints.error is not None:
                raise hints.error
        except VoiceLLMError as failure:
            error = describe(failure)
        return CallResult(
            call_id=self._call_id,
            script=self._script.name,
            started_s=started_s,
            ended_s=self._clock(),
            turns=tuple(self._turns),
            error=error,
        )

    async def _talk(self, call: TargetCall, hints: Hints) -> None:
        if self._script.prefill_on_open:
            hints.send(self._asking(""))
        turns = self._script.spoken_turns
        for index, turn in enumerate(turns):
            following = turns[index + 1] if index + 1 < len(turns) else None
            began_s = self._clock()
            if not await self._speak(turn, hints):
                return
            if not turn.text:
                goes_on = self._note(self._silence(index, began_s))
            else:
                goes_on = await self._converse(call, index, turn, following, began_s)
            if not goes_on:
                return

    async def _converse(
        self, call: TargetCall, index: int, turn: CallerTurn, following: CallerTurn | None, began_s: float
    ) -> bool:
        """Have a turn answered and listen to the reply; False where the caller hangs up."""
        breaks_off = turn.hangs_up or (following.starts if following else None)
        exchange = Exchange(
            call,
            self._script,
            self._asking(turn.text, turn.rag_context),
            max_tokens=turn.max_tokens,
            breaks_off=breaks_off,
            clock=self._clock,
            sleep=self._sleep,
        )
        await exchange.run()
        result = exchange.result(self._call_id, index, began_s, interrupted_ms=self._interrupted_ms)
        self._interrupted_ms = exchange.stopped_ms
        if not self._note(result) or exchange.error is not None:
            return False
        if exchange.broken_off and turn.hangs_up is not None:
            return False
        self._history += exchange.messages
        if exchange.broken_off or following is None:
            return exchange.broken_off or await self._wait_until(exchange.heard_until_s)
        think_s = self._script.think_s if following.think_s is None else following.think_s
        return await self._wait_until(exchange.heard_until_s + think_s)

    async def _speak(self, turn: CallerTurn, hints: Hints) -> bool:
        """Say something, or nothing; False where the caller hangs up in the middle of it."""
        started_s = self._clock()
        speaking = Speaking(turn, self._script, self._rng)
        for after_s, partial in speaking.partials() if self._script.partials else ():
            if not await self._wait_until(started_s + after_s):
                return False
            hints.send(self._asking(partial))
        return await self._wait_until(started_s + speaking.lasts_s)

    def _silence(self, index: int, began_s: float) -> TurnResult:
        """A turn in which nobody says anything: no target speaks unasked."""
        now_s = self._clock()
        return TurnResult(call_id=self._call_id, turn=index, spoke_s=began_s, asked_s=now_s, total_ms=0.0)

    def _note(self, turn: TurnResult) -> bool:
        self._turns.append(turn)
        return self._on_turn(turn)

    def _asking(self, text: str, rag_context: str | None = None) -> ChatMessages:
        message = {"role": "user", "content": text}
        return [*self._history, message | ({"rag_context": rag_context} if rag_context else {})]

    async def _wait_until(self, time_s: float) -> bool:
        """Wait for a moment on the clock; False where the caller hangs up before it."""
        await self._sleep(max(0.0, min(time_s, self._until_s) - self._clock()))
        return time_s < self._until_s
