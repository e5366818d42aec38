"""One point: callers on the phone with one server, and what they and the machine saw in the window."""

from __future__ import annotations

import asyncio
import datetime
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from voice_llm.events import Timings, Usage
from voice_llm.simulator import CallScript, RunResult, TurnResult, run_calls

from .ladder import Planned
from .points import Point
from .processes import cpu_s
from .systems import Server, System
from .window import Window

__all__ = ["BenchError", "measure", "paired", "prompt_tokens"]

_PROBE_TOKENS: Final = 2
_ROUNDING_S: Final = 1e-6


class BenchError(Exception):
    """The comparison would not be one; the message says why."""


@dataclass(slots=True)
class _Seen:
    """What was read of the server at the window's edges, and its own timings, each with when it was told."""

    server: Server
    opens_s: float
    closes_s: float
    cpu_s: float = 0.0
    computed_tokens: float | None = None
    timings: list[tuple[float, Timings]] = field(default_factory=list)

    def take(self, timings: Timings) -> None:
        """Keep the timings of a turn."""
        self.timings.append((time.monotonic(), timings))

    def counts(self, turn: TurnResult) -> bool:
        """Whether a turn was asked for within the window."""
        return self.opens_s <= turn.asked_s < self.closes_s

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
    planned: Planned, server: Server, scripts: Sequence[CallScript], *, window: Window, code: str | None
) -> Point:
    """Let callers call, and return what was found within the window.

    Args:
        planned: The point.
        server: Of its system.
        scripts: Calls, more than fit.
        window: When turns count.
        code: The commit that is measured.
    """
    system = planned.system
    date = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    began_s = time.monotonic()
    seen = _Seen(server, began_s + window.opens_s, began_s + window.closes_s)
    async with system.target(server, seen.take) as target, asyncio.TaskGroup() as tasks:
        tasks.create_task(seen.watch())
        result = await run_calls(
            target,
            [system.asked(script) for script in scripts],
            concurrent=planned.calls,
            duration_s=window.closes_s,
            ramp_s=window.ramp_s,
        )
    turns = [turn for turn in result.turns if seen.counts(turn)]
    answered = [turn for turn in turns if turn.error is None]
    timed = [(turn, told) for turn, told in paired(result.turns, seen.timings) if seen.counts(turn) and not turn.error]
    usage = sum((turn.usage for turn in turns if turn.usage is not None), Usage())
    return Point(
        system=system.name,
        calls=planned.calls,
        round=planned.round,
        date=date,
        window_s=window.closes_s - window.opens_s,
        turns=len(turns),
        first_token_ms=_column(turn.first_token_ms for turn in answered),
        first_speech_ms=_column(turn.first_speech_ms for turn in answered),
        gap_s=tuple(round(turn.gap_s, 3) for turn in answered),
        clause_ms=_column(_from_end_of_turn(turn, told, told.first_chunk_ms) for turn, told in timed),
        server_first_token_ms=_column(_from_end_of_turn(turn, told, told.first_token_ms) for turn, told in timed),
        errors=_errors(result, turns, seen),
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
        computed_tokens=seen.computed_tokens,
        cpu_s=round(seen.cpu_s, 2),
        commit=code,
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


def paired(turns: Iterable[TurnResult], told: Iterable[tuple[float, Timings]]) -> list[tuple[TurnResult, Timings]]:
    """Return each timing with its turn: it is told in the moment in which the turn ends, so just before that end.

    Args:
        turns: All turns of a run.
        told: When timings were told, on the turns' clock, and the timings.
    """
    by_end = sorted((turn.asked_s + turn.total_ms / 1e3, n, turn) for n, turn in enumerate(turns))
    ends = [end_s for end_s, _, _ in by_end]
    found = ((bisect_left(ends, told_s - _ROUNDING_S), timings) for told_s, timings in told)
    return [(by_end[place][2], timings) for place, timings in found if place < len(by_end)]


def _from_end_of_turn(turn: TurnResult, timings: Timings, server_ms: float | None) -> float | None:
    """Return a server's timing as the caller counts: with what the turn took outside of the server.

    That is mostly waiting for the call to be ready, while its opening prompt is computed.
    """
    if server_ms is None or timings.total_ms is None:
        return None
    return server_ms + max(0.0, turn.total_ms - timings.total_ms)


def _errors(result: RunResult, turns: Sequence[TurnResult], seen: _Seen) -> dict[str, int]:
    """Count what went wrong in the window by its code: in turns, and in calls outside of them."""
    in_calls = [call.error for call in result.calls if seen.opens_s <= call.ended_s < seen.closes_s]
    told = [error for error in (*(turn.error for turn in turns), *in_calls) if error is not None]
    return dict(Counter(error.partition(":")[0] for error in told))


def _column(values: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(round(value, 1) for value in values if value is not None)
