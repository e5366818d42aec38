"""Load: many questions at once to a running server, and what came of them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import VoiceLLMError
from ..simulator import Percentiles
from .answer import Answer, measure

if TYPE_CHECKING:
    from .grpc_client import GrpcClient, Question

__all__ = ["LoadResult", "ask_all", "spread"]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of one round of questions.

    Attributes:
        answers: Those that were answered.
        errors: Error code -> how often.
        wall_s: How long the round took.
    """

    answers: Sequence[Answer]
    errors: Counter[str]
    wall_s: float

    @property
    def first_token_ms(self) -> Percentiles | None:
        """From asking to the first text."""
        return Percentiles.of(answer.first_token_ms for answer in self.answers)

    @property
    def total_ms(self) -> Percentiles | None:
        """From asking to the end."""
        return Percentiles.of(answer.total_ms for answer in self.answers)

    @property
    def completion_tokens(self) -> int:
        """Tokens of all replies."""
        return sum(answer.completion_tokens for answer in self.answers)

    @property
    def tokens_per_s(self) -> float:
        """Tokens of all replies in the round's time."""
        return self.completion_tokens / max(self.wall_s, 1e-6)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "requests": len(self.answers) + self.errors.total(),
            "errors": dict(self.errors),
            "wall_s": round(self.wall_s, 3),
            "first_token_ms": _rounded(self.first_token_ms),
            "total_ms": _rounded(self.total_ms),
            "completion_tokens": self.completion_tokens,
            "tokens_per_s": round(self.tokens_per_s, 1),
        }


async def ask_all(
    client: GrpcClient,
    questions: Sequence[Question],
    *,
    concurrent: int,
    clock: Callable[[], float],
    on_done: Callable[[], None],
) -> LoadResult:
    """Ask all questions, ``concurrent`` of them at a time; one that fails is counted and the next is asked."""
    left = iter(questions)
    answers: list[Answer] = []
    errors: Counter[str] = Counter()

    async def ask_on() -> None:
        for question in left:
            try:
                answers.append(await measure(client, question, clock, lambda _: None))
            except VoiceLLMError as e:
                errors[e.code] += 1
            on_done()

    began_s = clock()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrent, len(questions))):
            group.create_task(ask_on())
    return LoadResult(answers, errors, clock() - began_s)


def spread(results: Sequence[LoadResult]) -> dict[str, dict[str, float]]:
    """Return how far the rounds lie apart: least, middle and greatest of each round's figures."""
    figures: dict[str, list[float]] = {"tokens_per_s": [result.tokens_per_s for result in results]}
    for name in ("first_token_ms", "total_ms"):
        known = [p for p in (getattr(result, name) for result in results) if p is not None]
        figures |= {f"{name}_p50": [p.p50 for p in known], f"{name}_p95": [p.p95 for p in known]}
    return {
        name: {"min": round(min(values), 1), "median": round(_median(values), 1), "max": round(max(values), 1)}
        for name, values in figures.items()
        if values
    }


def _median(values: Sequence[float]) -> float:
    found = Percentiles.of(values)
    assert found is not None
    return found.p50


def _rounded(percentiles: Percentiles | None) -> dict[str, Any] | None:
    if percentiles is None:
        return None
    return {name: round(value, 1) for name, value in dataclasses.asdict(percentiles).items() if name != "count"}
