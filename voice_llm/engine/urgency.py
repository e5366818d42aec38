"""Urgency: who of the talking calls has to go on now, and who can wait, by what their callers still have to hear."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from .request import Request

__all__ = ["Pace", "Talkers"]

# What a sentence takes, and what is left of one that has grown longer than that.
_CHUNK_TOKENS: Final = 20
_LAST_TOKENS: Final = 4
# A forecast of steps is not exact.
_MARGIN: Final = 1.25
# Nobody hears a one-shot; it moves on all the same.
_ONE_SHOT_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast replies can go on.

    Attributes:
        step_s: What a step of all of them takes, in seconds.
        prompt_step_s: What a step of prompts takes that may come after each of these.
        prompts_s: What all prompts together take that may come before they go on.
        max_ahead_s: How much speech a caller may have in store.
    """

    step_s: float
    prompt_step_s: float
    prompts_s: float
    max_ahead_s: float

    def alone_s(self, tokens: int) -> float:
        """How long so many tokens of each reply take if nothing else is worked on."""
        return tokens * self.step_s * _MARGIN

    def beside_prompts_s(self, tokens: int) -> float:
        """How long they take if prompts come first or, a step at a time, between them; whichever is less."""
        return self.alone_s(tokens) + min(tokens * self.prompt_step_s, self.prompts_s) * _MARGIN


@dataclass(slots=True)
class Talkers:
    """The talking calls of one moment, by what their callers hear.

    Attributes:
        unspoken: Their callers hear nothing yet.
        silent: Their callers are about to run out of speech even if nothing but replies is worked on from now on.
        pressing: They run out of speech unless they go on now; those without pacing always do.
        patient: Their callers have enough to hear, most urgent first.
        resting: Their callers have so much to hear that nothing more is decoded ahead of it.
        rest_until_s: When the first of these goes on.
        spare_s: How long all that are patient can wait before one of them has to go on alone.
    """

    unspoken: list[Request] = field(default_factory=list)
    silent: list[Request] = field(default_factory=list)
    pressing: list[Request] = field(default_factory=list)
    patient: list[Request] = field(default_factory=list)
    resting: list[Request] = field(default_factory=list)
    rest_until_s: float = float("inf")
    spare_s: float = float("inf")

    @classmethod
    def at(cls, now_s: float, talking: Iterable[Request], pace: Pace) -> Talkers:
        """Sort talking calls.

        Args:
            now_s: Present time.
            talking: All of them.
            pace: How fast they can go on.
        """
        talkers = cls()
        patient: list[tuple[float, Request]] = []
        for request in talking:
            speech = request.work.speech
            if request.call.one_shot:
                spare_s = request.work.last_token_s + _ONE_SHOT_EVERY_S - now_s
                if spare_s > 0:
                    patient.append((spare_s, request))
                else:
                    talkers.pressing.append(request)
            elif speech is None:
                talkers.pressing.append(request)
            elif not speech.begun:
                talkers.unspoken.append(request)
            else:
                talkers._place(request, speech.slack_s(now_s), now_s, pace, patient)
        talkers.patient = [request for _, request in sorted(patient, key=lambda p: (p[0], p[1].sequence.id))]
        return talkers

    def _place(
        self,
        request: Request,
        slack_s: float,
        now_s: float,
        pace: Pace,
        patient: list[tuple[float, Request]],
    ) -> None:
        work = request.work
        tokens = max(_LAST_TOKENS, _CHUNK_TOKENS - (len(work.generated) - work.chunked_tokens))
        if slack_s > pace.max_ahead_s:
            self.resting.append(request)
            self.rest_until_s = min(self.rest_until_s, now_s + slack_s - pace.max_ahead_s)
        elif slack_s <= pace.alone_s(tokens):
            self.silent.append(request)
        elif slack_s <= pace.beside_prompts_s(tokens):
            self.pressing.append(request)
        else:
            patient.append((slack_s, request))
            self.spare_s = min(self.spare_s, slack_s - pace.alone_s(tokens))

    @property
    def urgent(self) -> list[Request]:
        """All that should go on now."""
        return [*self.unspoken, *self.silent, *self.pressing]
