"""The run: each point that is left, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from .commit import commit
from .ladder import Ladder, Plan, Planned
from .measure import BenchError, measure, prompt_tokens
from .points import Point
from .systems import Setup
from .window import Window
from .workload import Reader

__all__ = ["CONTEXT_TOKENS", "Run", "check_prompt"]

CONTEXT_TOKENS: Final = 2048


class Run:
    """A run as it goes on.

    Args:
        plan: What to measure.
        model: The model file.
        held: What was measured before, and is not measured again.

    Attributes:
        points: What has been measured, ``held`` first.
        ladder: What is left.
    """

    def __init__(self, plan: Plan, model: Path, held: Sequence[Point] = ()) -> None:
        self._plan = plan
        self._model = model
        self.points: list[Point] = list(held)
        self.ladder = Ladder(plan, held)

    def go(self, *, on_start: Callable[[Planned], None], on_point: Callable[[Point], None]) -> None:
        """Measure what is left; an interrupt leaves what was measured before in ``points``.

        Args:
            on_start: Called before each point.
            on_point: Called with each point when it has been measured.

        Raises:
            BenchError: A system reads another prompt than the others.
            PeerError: llama.cpp's server is missing, or does not run.
        """
        probe = self._plan.workload.probe()
        with Reader(self._model) as reader:
            expected = len(reader.first_prompt(probe))
        for planned in self.ladder.points():
            on_start(planned)
            code = commit()
            setup = Setup(self._model, planned.calls, CONTEXT_TOKENS, self._plan.threads)
            scripts = self._plan.workload.scripts(planned.round, planned.calls)
            with planned.system.start(setup) as server:
                read = asyncio.run(prompt_tokens(planned.system, server, probe))
                check_prompt(planned.system.name, read, expected)
                window = Window.of(planned.calls, self._plan.point_s)
                point = asyncio.run(measure(planned, server, scripts, window=window, code=code))
            self.points.append(point)
            self.ladder.note(point)
            on_point(point)


def check_prompt(system: str, read: int, expected: int) -> None:
    """Hold a system's own count of a prompt's tokens against what the prompt has.

    Raises:
        BenchError: It is another: the system is given other work than the rest.
    """
    if read != expected:
        raise BenchError(
            f"{system} reads {read} tokens in a prompt of {expected}: it is given other work than the rest"
        )
