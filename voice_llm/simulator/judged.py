"""A run held against what its scenarios expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .expectations import Observed, Outcome, Verdict, expectations_of, judge
from .results import RunResult, TurnResult
from .scenario import Scenario

__all__ = ["JudgedRun", "JudgedTurn", "judge_run", "judge_turn"]


@dataclass(frozen=True, slots=True)
class JudgedTurn:
    """A turn, and how it did.

    Attributes:
        scenario: Whose turn it was.
        result: What came.
        verdicts: One for each thing that was expected.
    """

    scenario: str
    result: TurnResult
    verdicts: tuple[Verdict, ...]

    @property
    def fails_run(self) -> bool:
        """Whether something that counts is not as expected."""
        return any(verdict.fails_run for verdict in self.verdicts)


@dataclass(frozen=True)
class JudgedRun:
    """A run, and how its turns did.

    Attributes:
        run: What came.
        turns: Those turns that have a scenario.
        scenarios: The names of the scenarios that were called, in the order of their first calls.
    """

    run: RunResult
    turns: tuple[JudgedTurn, ...]
    scenarios: tuple[str, ...] = ()

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """All of them."""
        return tuple(verdict for turn in self.turns for verdict in turn.verdicts)

    @property
    def failed(self) -> tuple[JudgedTurn, ...]:
        """Turns in which something that counts is not as expected."""
        return tuple(turn for turn in self.turns if turn.fails_run)

    def count(self, outcome: Outcome, *, gates: bool | None = None) -> int:
        """Return how many verdicts came out so; ``gates`` for those alone that count, or that do not."""
        return sum(v.outcome is outcome and gates in (None, v.gates) for v in self.verdicts)


def judge_run(run: RunResult, scenarios: Sequence[Scenario], *, times_count: bool = True) -> JudgedRun:
    """Hold a run's turns against the scenarios whose names their scripts have; others are expected nothing of.

    Args:
        run: What came.
        scenarios: What was expected.
        times_count: Whether persons were as fast as people are; else times are not judged.
    """
    by_name = {scenario.name: scenario for scenario in scenarios}
    return JudgedRun(
        run,
        tuple(
            judge_turn(turn, by_name[call.script], times_count=times_count)
            for call in run.calls
            if call.script in by_name
            for turn in call.turns
        ),
        tuple(dict.fromkeys(call.script for call in run.calls if call.script in by_name)),
    )


def judge_turn(result: TurnResult, scenario: Scenario, *, times_count: bool = True) -> JudgedTurn:
    """Hold one turn against its scenario."""
    turn = scenario.turns[result.turn]
    if result.error is not None:
        failed = Verdict("the turn is answered", Outcome.FAILED, result.error)
        return JudgedTurn(scenario.name, result, (failed,))
    observed = Observed(
        result.text,
        first_speech_ms=result.first_speech_ms,
        interrupted_ms=result.interrupted_ms,
        calls=tuple((call.name, call.arguments) for call in result.tool_calls),
        words_known=not result.is_sound,
        times_count=times_count,
    )
    expected = expectations_of(scenario, turn, cut_short=result.stopped_ms is not None) if turn.user else turn.expect
    verdicts = tuple(v for expectation in expected for v in judge(expectation, observed, scenario.language))
    return JudgedTurn(scenario.name, result, verdicts)
