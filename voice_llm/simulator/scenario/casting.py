"""From scenarios to calls: who dials, what they say, and how they differ from one another."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from ..script import CallerTurn, CallScript, Moment, ScriptedReply
from .model import Scenario, ScenarioTurn, SendAfter

__all__ = ["cast", "script_of"]

_EVENTS: Final = {"llm_started": "first_token", "bot_started_speaking": "first_speech"}
_SPEAKS: Final = (0.85, 1.15)
_THINKS: Final = (0.6, 1.6)


def cast(scenarios: Sequence[Scenario], *, seed: int = 0) -> Iterator[CallScript]:
    """Yield calls without end: each scenario once in random order, then all again.

    Persons differ in how fast they speak and think, so that calls do not go in step. The same seed gives the same
    calls.
    """
    rng = random.Random(seed)
    scripts = [script_of(scenario) for scenario in scenarios]
    while True:
        for script in rng.sample(scripts, len(scripts)):
            yield replace(
                script,
                speaking_wpm=script.speaking_wpm * rng.uniform(*_SPEAKS),
                think_s=script.think_s * rng.uniform(*_THINKS),
            )


def script_of(scenario: Scenario) -> CallScript:
    """Return the call that a scenario tells."""
    return CallScript(
        turns=tuple(_turn(turn, scenario) for turn in scenario.turns),
        name=scenario.name,
        language=scenario.language,
        system_prompt=scenario.system_prompt,
        history=scenario.context,
        rag_context="\n".join(scenario.facts) or None,
        tools=tuple(
            {
                "type": "function",
                "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
            }
            for t in scenario.tools
        ),
        tool_results={tool.name: tool.result for tool in scenario.tools},
        speaking_wpm=scenario.caller.speaking_wpm,
        think_s=scenario.caller.think_s,
        mishears=scenario.caller.mishears,
        noise_snr_db=scenario.caller.noise_snr_db,
    )


def _turn(turn: ScenarioTurn, scenario: Scenario) -> CallerTurn:
    send_after, good = turn.send_after, turn.reference
    interrupts = send_after is not None and send_after.interrupts
    return CallerTurn(
        turn.text,
        max_tokens=turn.max_tokens or scenario.max_tokens,
        silence_s=(turn.silence_ms or 0) / 1e3,
        pauses=tuple(_pauses(turn)),
        partials=turn.partials or None,
        starts=_moment(send_after) if interrupts else None,
        think_s=send_after.delay_ms / 1e3 if send_after is not None and not interrupts else None,
        hangs_up=_moment(turn.hang_up_after),
        rag_context="\n".join(turn.facts) or None,
        reply=ScriptedReply(good.text, tuple((call.name, call.args) for call in good.calls)) if good else None,
    )


def _pauses(turn: ScenarioTurn) -> Iterator[tuple[int, float]]:
    words = 0
    for part in turn.user or ():
        if isinstance(part, str):
            words += len(part.split())
        else:
            yield words, part.pause_ms / 1e3


def _moment(send_after: SendAfter | None) -> Moment | None:
    if send_after is None:
        return None
    delay_s = send_after.delay_ms / 1e3
    if send_after.word is not None:
        return Moment("word", delay_s, send_after.word)
    if send_after.event is not None:
        return Moment(_EVENTS[send_after.event], delay_s)  # type: ignore[arg-type]
    return Moment("asked", delay_s)
