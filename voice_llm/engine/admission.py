"""Admission: whether everyone's targets still hold with one more call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..config.engine import AdmissionRule
from ..errors import AtCapacityError
from .load import CallLoad, LoadSums

__all__ = ["Admission", "Forecast", "first_words_wait_s"]

# Less than this tells nothing: the plain limit alone holds.
_LEAST_OBSERVED_S: Final = 15.0
_LEAST_TURNS: Final = 8.0
# A machine that is idle for half of the time has room, whatever a few odd turns say.
_ROOM: Final = 0.5
# First words in this share of the target's time are well within it.
_WELL_WITHIN: Final = 0.5
# Who has to wait for so long has hung up.
_MOST_OPENING_S: Final = 20.0
_RETRY_S: Final = (1.0, 60.0)


@dataclass(frozen=True, slots=True)
class Forecast:
    """How it would be with one more call.

    Attributes:
        calls: How many there would be.
        utilisation: Share of the time that the machine would have work, early prefill included; may be more than 1.
        first_words_s: Mean time from a turn's arrival to its first words; infinite where replies alone are too much.
        work_s: Mean work of a turn until its first words, on a machine that does nothing else.
        alone_s: Mean time for a turn that waits for no other, beside the replies of so many calls.
        backlog_s: All the work there could be at once, with a turn of each call.
        target_s: When first words are due; None where no turn was paced.
    """

    calls: int
    utilisation: float
    first_words_s: float
    work_s: float
    alone_s: float
    backlog_s: float
    target_s: float | None

    @classmethod
    def of(cls, sums: LoadSums, calls: int, target_s: float | None) -> Forecast:
        """Forecast from what was measured; see ``Admission`` for how."""
        call_s = sums.call_s
        turns_per_s, turn_s = sums.turns / call_s, sums.turn_ms / sums.turns / 1e3
        opening_s = sums.opening_ms / 1e3 / sums.openings * sums.ended if sums.openings > 0 else 0.0
        spare = (sums.hint_ms / 1e3 + opening_s) / call_s
        reply = sums.reply_ms / 1e3 / call_s
        if sums.speech_s > 0:
            reply = min(reply, sums.reply_ms / 1e3 / sums.speech_s)
        talking = calls * reply + sums.soft_ms / 1e3 / sums.observed_s
        utilisation = talking + calls * (turns_per_s * turn_s + spare)
        free = 1 - talking
        if free <= 0:
            return cls(calls, utilisation, float("inf"), turn_s, float("inf"), float("inf"), target_s)
        alone_s = turn_s / free
        spoken_s = sums.first_words_s / sums.first_words if sums.first_words > 0 else alone_s
        wait_s = first_words_wait_s(
            calls,
            think_s=max(0.0, 1 / turns_per_s - spoken_s),
            work_s=alone_s,
            rest_s=sums.turn_ms2 / sums.turn_ms / 2e3 / free if sums.turn_ms > 0 else 0.0,
        )
        backlog_s = calls * (turn_s + spare / turns_per_s) / free
        return cls(calls, utilisation, alone_s + wait_s, turn_s, alone_s, backlog_s, target_s)

    @property
    def refusal(self) -> str | None:
        """Why a call more would be too many; None where it would not, or nobody waits for a voice."""
        if self.utilisation <= _ROOM or self.target_s is None:
            return None
        if max(self.target_s, 2 * self.work_s) < self.first_words_s < float("inf"):
            return f"first words would take about {self.first_words_s:.1f} s where {self.target_s:g} s is the target"
        if self.utilisation > 1 and self.backlog_s > self.target_s:
            return f"the machine would have work for {self.utilisation:.0%} of the time"
        return None


class Admission:
    """Says whether one more call may be opened, by a forecast from what the open ones bring.

    The load of a call is measured, not guessed: busy time per second of an open call, over about a minute, by what has
    to be done at once and what can wait. ``n + 1`` calls bring ``n + 1`` times as much. What is assumed:

    - A new call is like the present ones, and a row costs what it costs now: with one call more, of many, nearly so.
    - Replies that have begun to speak go first. A call needs no more of that than it takes to keep pace with the voice,
      however far ahead it was decoded. What they leave is the share of the machine that turns have: their work takes so
      much longer (a queue with preemptive priority, as a slower server).
    - Turns until their first words wait for one another, first come first served, and each call has one at most. The
      wait follows from the mean and the mean square of their work (see ``first_words_wait_s``).
    - Early prefill and opening prompts can wait, so that no turn waits for more of them than a step, which is left out.
      They are part of the utilisation all the same: hints that find no room are work that turns have to do. An opening
      prompt comes as often as calls end. One-shots are in nobody's way.
    - What soft calls bring stays as it is; where no reply is paced, there is no target.

    Refused is what would make mean first words later than the target, or keep the machine busy beyond its time while a
    turn of every call does not fit into the target; and whoever would have to wait for 20 s until the prompts that the
    machine has before it are done, by the cost model, as when calls come faster than they can be opened. Where a turn's
    own work takes most of the target, fewer calls would not help it: then only waiting for others for longer than that
    counts. A wrong refusal is worse than a late one: before enough was seen, below half utilisation, and up to as many
    calls as have been held with first words well within the target, none is refused.

    Args:
        load: Measures the open calls.
        rule: ``"limit"`` admits by number alone; the forecast is made all the same.
    """

    def __init__(self, load: CallLoad, rule: AdmissionRule) -> None:
        self._load = load
        self._rule = rule
        self._held_well = 0

    def forecast(self, now_s: float) -> Forecast | None:
        """Return how it would be with one more call; None where too little was seen to say."""
        sums = self._load.sums(now_s)
        if sums.observed_s < _LEAST_OBSERVED_S or sums.turns < _LEAST_TURNS:
            return None
        return Forecast.of(sums, self._load.calls + 1, self._load.target_s)

    def check(self, now_s: float, *, pending_s: float = 0.0) -> None:
        """Check that one more call leaves everyone's targets within reach.

        Args:
            now_s: Present time.
            pending_s: What the prompts of open calls that are not computed yet will take: turns and opening prompts.

        Raises:
            AtCapacityError: It does not.
        """
        if self._rule == "limit" or not self._load.calls:
            return
        if pending_s > _MOST_OPENING_S:
            raise self._refused(
                f"with one more call, its opening prompt would wait for about {pending_s:.0f} s for those of others",
                pending_s - _MOST_OPENING_S,
            )
        self.note_held(now_s)
        forecast = self.forecast(now_s)
        if forecast is None or forecast.calls <= self._held_well or forecast.refusal is None:
            return
        raise self._refused(f"with one more call, {forecast.refusal}", self._next_end_s(now_s))

    def note_held(self, now_s: float) -> None:
        """Note how well the calls of about the last minute were held; due before one of them ends."""
        sums, target_s = self._load.sums(now_s), self._load.target_s
        if target_s is None or sums.observed_s < _LEAST_OBSERVED_S or sums.first_words < _LEAST_TURNS:
            return
        first_words_s = sums.first_words_s / sums.first_words
        if first_words_s <= target_s * _WELL_WITHIN:
            self._held_well = max(self._held_well, round(sums.call_s / sums.observed_s))
        elif first_words_s > target_s:
            self._held_well = 0

    def _refused(self, why: str, retry_after_s: float) -> AtCapacityError:
        least, most = _RETRY_S
        return AtCapacityError(
            f"{why}; calls open: {self._load.calls}", retry_after_s=min(max(retry_after_s, least), most)
        )

    def _next_end_s(self, now_s: float) -> float:
        """Return in what time one of the open calls should end: their mean duration through their number."""
        sums = self._load.sums(now_s)
        return sums.call_s / max(sums.ended, 1.0) / self._load.calls


def first_words_wait_s(calls: int, *, think_s: float, work_s: float, rest_s: float) -> float:
    """Return how long a turn waits for those of other calls, in the mean.

    Mean value analysis of a closed queue with general service times (M. Reiser, "A queueing network analysis of
    computer communication networks with window flow control", IEEE Trans. Comm. 27(8), 1979): who arrives among ``k``
    calls finds what ``k - 1`` have in the machine: ``W = queue * work_s + busy * rest_s``, from which follow, by
    Little's law, queue and busy share of ``k``. With ever more calls of ever less load it becomes the formula of
    Pollaczek and Khinchine for M/G/1.

    Args:
        calls: At least 1.
        think_s: From a turn's first words to the same call's next turn.
        work_s: Mean work of a turn.
        rest_s: What is left of the one under way, in the mean: mean square through twice the mean.
    """
    wait_s = queue = busy = 0.0
    for among in range(1, calls + 1):
        wait_s = queue * work_s + busy * rest_s
        cycle_s = think_s + wait_s + work_s
        if cycle_s <= 0:
            return 0.0
        queue, busy = among * wait_s / cycle_s, min(1.0, among * work_s / cycle_s)
    return wait_s
