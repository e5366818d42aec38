"""VirtualTarget: calls to a VirtualEngine, whose replies are written down before."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Final

from ...config import SamplingParams
from ...runtime import Call
from ..results import TurnResult
from ..script import CallerTurn, CallScript, ScriptedReply
from ..targets import ChatMessages, EngineCall, EngineTarget, TargetCall
from .engine import VirtualEngine

__all__ = ["Replies", "VirtualTarget", "recorded_replies", "scripted_replies"]

Replies = Callable[[CallerTurn], ScriptedReply]
"""What is said to a turn of a caller."""

_FILLER: Final = (
    "Let me have a look at that for you. Your request has been noted, and a colleague of mine takes care of it today. "
    "You will get a message as soon as there is something new. Is there anything else that I can do for you?"
)


def scripted_replies(turn: CallerTurn) -> ScriptedReply:
    """Say what the script has as a good reply, or else a few sentences that fit anything."""
    return turn.reply or ScriptedReply(_FILLER)


def recorded_replies(turns: Iterable[TurnResult]) -> Replies:
    """Say what was said in a run before: to the same words the same, in order, to others one of all replies."""
    recorded: dict[str, deque[str]] = defaultdict(deque)
    for turn in turns:
        if turn.text and turn.error is None:
            recorded[_plain(turn.said)].append(turn.text)
    texts = sorted({text for said in recorded.values() for text in said})

    def reply(turn: CallerTurn) -> ScriptedReply:
        known = recorded.get(_plain(turn.text))
        if known:
            return ScriptedReply(known.popleft() if len(known) > 1 else known[0])
        return ScriptedReply(texts[sum(turn.text.encode()) % len(texts)]) if texts else scripted_replies(turn)

    return reply


class VirtualTarget(EngineTarget):
    """The engine in virtual time.

    Args:
        engine: Stays the owner's to close.
        replies: What it says.
        sampling: How replies are drawn, as far as that decides anything here: their length, pacing, first chunk.
        tenant: Whose calls they are.
        early: Whether hints are taken; without, calls are like those of a client that knows no hints.
    """

    def __init__(
        self,
        engine: VirtualEngine,
        *,
        replies: Replies = scripted_replies,
        sampling: SamplingParams | None = None,
        tenant: str = "default",
        early: bool = True,
    ) -> None:
        super().__init__(engine, sampling=sampling, tenant=tenant)
        self._virtual = engine
        self._replies = replies
        self._early = early

    async def open(self, script: CallScript, call_id: str) -> TargetCall:
        """See ``Target``."""
        call = await self._open(script, call_id)
        return _VirtualCall(self._virtual, call, script, self._sampling, self._replies, early=self._early)


class _VirtualCall(EngineCall):
    def __init__(
        self,
        engine: VirtualEngine,
        call: Call,
        script: CallScript,
        sampling: SamplingParams | None,
        replies: Replies,
        *,
        early: bool,
    ) -> None:
        super().__init__(call, script, sampling)
        self._engine = engine
        self._turns = iter([turn for turn in script.turns if turn.text])
        self._replies = replies
        self._early = early
        self._reply = ScriptedReply("")

    async def prefill(self, messages: ChatMessages) -> None:
        if self._early:
            await super().prefill(messages)

    async def turn(self, messages: ChatMessages, max_tokens: int | None) -> AsyncGenerator[str, None]:
        self._engine.simulated.say_next(self._next_words(messages))
        async for piece in super().turn(messages, max_tokens):
            yield piece

    def _next_words(self, messages: ChatMessages) -> str:
        if messages[-1]["role"] == "tool":
            return self._reply.text
        self._reply = self._replies(next(self._turns))
        tool_format = self._engine.tool_format
        calls = [piece.text for name, args in self._reply.calls for piece in tool_format.call(name, args)]
        return "".join(calls) or self._reply.text


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().casefold()
