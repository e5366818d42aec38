"""One point: callers on the phone with one server, and what they and the machine saw in the window."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from voice_llm.events import Timings, Usage
from voice_llm.simulator import CallScript, RunResult, TurnResult, run_calls

from .processes import cpu_s
from .results import Point
from .systems import Server, System

__all__ = ["BenchError", "Window", "measure", "prompt_tokens"]

# An opening prompt takes about as long to compute where nothing else is done: dialling all at once would leave a queue
# that a window never sees the end of.
_RAMP_S_A_CALL: Final = 2.0
_SETTLE_S: Final = 5.0
_PROBE_TOKENS: Final = 2


class BenchError(Exception):
    """The comparison would not be one; the message says why."""


@dataclass(frozen=True, slots=True)
class Window:
    """When turns count, in seconds since the callers began: they dial one by one, and what is left of that settles.

    Attributes:
        ramp_s: How long callers dial.
        opens_s: From when turns count.
        closes_s: Until when; callers hang up then.
    """

    ramp_s: float
    opens_s: float
    closes_s: float

    @classmethod
    def of(cls, calls: int, point_s: float) -> Window:
        """Return the window of ``point_s`` seconds for so many callers."""
        ramp_s = min(_RAMP_S_A_CALL * calls, point_s / 2)
        opens_s = ramp_s + min(_SETTLE_S, point_s / 5)
        return cls(ramp_s, opens_s, opens_s + point_s)


@dataclass(slots=True)
class _Seen:
    """What was read of the server at the window's edges, and its own timings within it."""

    server: Server
    opens_s: float
    closes_s: float
    cpu_s: float = 0.0
    computed_tokens: float | None = None
    timings: list[Timings] = field(default_factory=list)

    def take(self, timings: Timings) -> None:
        """Keep the timings of a turn that was asked for within the window."""
        asked_s = time.monotonic() - (timings.total_ms or 0.0) / 1e3
        if self.opens_s <= asked_s < self.closes_s:
            self.timings.append(timings)

    async def watch(self) -> None:
        """Read the server's counts when the window opens and when it closes."""
        await asyncio.sleep(self.opens_s - time.monotonic())
        cpu_before_s, computed_before = await asyncio.to_thread(self._counts)
        await asyncio.sleep(self.closes_s - time.monotonic())
        cpu_after_s, computed_after = await asyncio.to_thread(self._counts)
        self.cpu_s = cpu_after_s - cpu_before_s
        if computed_before is not None and computed_after is not None:
            self.computed_tokens = computed_after - computed_before

    def _counts(self) -> tuple[float, float | None]:
        computed = self.server.computed_tokens
        return cpu_s(self.server.pid), None if computed is None else computed()


async def measure(
    system: System, server: Server, scripts: Sequence[CallScript], *, calls: int, round_: int, window: Window
) -> Point:
    """Let callers call, and return what was found within the window."""
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    began_s = time.monotonic()
    seen = _Seen(server, began_s + window.opens_s, began_s + window.closes_s)
    async with system.target(server, seen.take) as target, asyncio.TaskGroup() as tasks:
        tasks.create_task(seen.watch())
        result = await run_calls(
            target,
            [system.asked(script) for script in scripts],
            concurrent=calls,
            duration_s=window.closes_s,
            ramp_s=window.ramp_s,
        )
    turns = [turn for turn in result.turns if seen.opens_s <= turn.asked_s < seen.closes_s]
    answered = [turn for turn in turns if turn.error is None]
    usage = sum((turn.usage for turn in turns if turn.usage is not None), Usage())
    return Point(
        system=system.name,
        calls=calls,
        round=round_,
        date=date,
        window_s=window.closes_s - window.opens_s,
        turns=len(turns),
        first_token_ms=_column(turn.first_token_ms for turn in answered),
        first_speech_ms=_column(turn.first_speech_ms for turn in answered),
        gap_s=tuple(round(turn.gap_s, 3) for turn in answered),
        clause_ms=_column(timings.first_chunk_ms for timings in seen.timings),
        server_first_token_ms=_column(timings.first_token_ms for timings in seen.timings),
        errors=_errors(result, turns, seen),
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        computed_tokens=seen.computed_tokens,
        cpu_s=round(seen.cpu_s, 2),
    )


async def prompt_tokens(system: System, server: Server, script: CallScript) -> int:
    """Ask a fresh server a call's first question; returns how many tokens its prompt had.

    Raises:
        BenchError: It does not tell.
        VoiceLLMError: It does not answer.
    """
    asked = system.asked(script)
    messages = [{"role": "user", "content": asked.turns[0].text}]
    if asked.system_prompt:
        messages.insert(0, {"role": "system", "content": asked.system_prompt})
    async with system.target(server, lambda timings: None) as target:
        call = await target.open(asked, "probe")
        try:
            async with aclosing(call.turn(messages, _PROBE_TOKENS)) as reply:
                async for _ in reply:
                    pass
        finally:
            await call.close()
    if call.usage is None:
        raise BenchError(f"{system.name} does not tell how many tokens a prompt has")
    return call.usage.prompt_tokens


def _errors(result: RunResult, turns: Sequence[TurnResult], seen: _Seen) -> dict[str, int]:
    """Count what went wrong in the window by its code: in turns, and in calls outside of them."""
    in_calls = [call.error for call in result.calls if seen.opens_s <= call.ended_s < seen.closes_s]
    told = [error for error in (*(turn.error for turn in turns), *in_calls) if error is not None]
    return dict(Counter(error.partition(":")[0] for error in told))


def _column(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(round(value, 1) for value in values if value is not None)
