"""The line: in which order callers who hear nothing yet are served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .cost import CostModel, DecodeShape
from .request import Request, RequestState

__all__ = ["Line", "Waiter"]

# What the first words of a reply take; less where some have been drawn already, but never nothing.
_FIRST_WORDS_TOKENS: Final = 12
_LAST_TOKENS: Final = 2
# Nobody hears a one-shot: it is due so much later.
_ONE_SHOT_WAITS_S: Final = 5.0
# Without pacing there is no first word to be in time for.
_TARGET_S: Final = 0.8
# Who is late by up to such a share of the time that there was is served as if in time.
_NEARLY: Final = 0.25
# Who is due a second earlier may take so much longer and is served first all the same.
_AGING: Final = 0.5
# What takes longer than the target on an idle machine is due after so many times as long.
_PATIENCE: Final = 1.1


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """A turn whose caller hears nothing yet.

    Attributes:
        request: The turn.
        due_s: When its first words are due: at the profile's target after its arrival, or later where even an idle
            machine takes longer.
        left_s: What is left to do until then, in seconds of the machine's time.
    """

    request: Request
    due_s: float
    left_s: float

    @property
    def time_s(self) -> float:
        """How much time there was until they are due."""
        return self.due_s - self.request.arrival_s

    @classmethod
    def of(cls, request: Request, cost: CostModel) -> Waiter:
        """Estimate what a turn still takes."""
        work = request.work
        words = max(_LAST_TOKENS, _FIRST_WORDS_TOKENS - len(work.generated))
        token_ms = cost.decode_ms(DecodeShape(((1, len(request.prompt)),)))
        all_ms = cost.prefill_ms(len(request.prompt) - request.cached_tokens, request.cached_tokens)
        left_ms = 0.0
        if request.state is RequestState.PREFILLING:
            left_ms = cost.prefill_ms(request.remaining_tokens, request.computed_tokens)
        target_s = work.speech.target_s if work.speech is not None else _TARGET_S
        alone_s = (all_ms + _FIRST_WORDS_TOKENS * token_ms) / 1e3
        due_s = request.arrival_s + (target_s if alone_s < target_s else _PATIENCE * alone_s)
        due_s += _ONE_SHOT_WAITS_S * request.call.one_shot
        return cls(request, due_s, (left_ms + words * token_ms) / 1e3)


@dataclass(frozen=True, slots=True)
class Line:
    """Who waits for first words, in the order in which to serve them.

    The earliest due first, which is the best order as long as all can be in time, and behind them who is late anyway,
    the shortest first, but for how long they have waited. One after the other: of two prompts that shared the machine,
    both would be done when the second one is. Somebody who takes little goes before all, where nobody is late for it:
    so a short turn does not wait for a long prompt that has time. One-shots, which nobody hears, wait for all callers.

    Attributes:
        waiters: All of them.
        overdue: Those that are late by as much as they had time; earliest due first.
    """

    waiters: Sequence[Waiter]
    overdue: Sequence[Waiter]

    @classmethod
    def of(cls, now_s: float, requests: Iterable[Request], cost: CostModel) -> Line:
        """Line up turns."""
        in_time: list[Waiter] = []
        late: list[Waiter] = []
        unheard: list[Waiter] = []
        end_s = now_s
        for waiter in sorted((Waiter.of(r, cost) for r in requests), key=_due):
            if waiter.request.call.one_shot:
                unheard.append(waiter)
            elif end_s + waiter.left_s <= waiter.due_s + _NEARLY * waiter.time_s:
                in_time.append(waiter)
                end_s += waiter.left_s
            else:
                late.append(waiter)
        line = _shortest_first_if_in_time(now_s, in_time, sorted(late, key=_left_and_due))
        overdue = [waiter for waiter in (*late, *unheard) if now_s > waiter.due_s + waiter.time_s]
        return cls([*line, *unheard], overdue)

    @property
    def first(self) -> Request:
        """Who is served first."""
        return self.waiters[0].request

    @property
    def overdue_prompts(self) -> bool:
        """Whether a prompt is overdue."""
        return any(waiter.request.state is RequestState.PREFILLING for waiter in self.overdue)

    def prompts(self, *, overdue_first: bool) -> list[Request]:
        """Return the prompts in order.

        Args:
            overdue_first: Begin with those that are overdue: done now and then, nobody waits for ever.
        """
        waiters = dict.fromkeys([*self.overdue, *self.waiters] if overdue_first else self.waiters)
        return [waiter.request for waiter in waiters if waiter.request.state is RequestState.PREFILLING]


def _shortest_first_if_in_time(now_s: float, in_time: Sequence[Waiter], late: Sequence[Waiter]) -> list[Waiter]:
    """Move whoever takes least to the front, if those due before can spare as much."""
    line = [*in_time, *late]
    end_s, spare_s = now_s, float("inf")
    best = 0
    for place, waiter in enumerate(line[: len(in_time) + 1]):
        if waiter.left_s <= spare_s and waiter.left_s < line[best].left_s:
            best = place
        if place < len(in_time):
            end_s += waiter.left_s
            spare_s = min(spare_s, waiter.due_s - end_s)
    return [*line[best : best + 1], *line[:best], *line[best + 1 :]]


def _due(waiter: Waiter) -> tuple[float, float]:
    return (waiter.due_s, waiter.left_s)


def _left_and_due(waiter: Waiter) -> tuple[float, float]:
    return (waiter.left_s + _AGING * waiter.due_s, waiter.request.arrival_s)
