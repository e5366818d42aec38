"""CallLoad: what work the open calls bring, measured over about the last minute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

from ..backend.base import BatchEntry
from .request import LiveCall, Request, RequestKind, RequestState

__all__ = ["CallLoad", "LoadSums"]

_WINDOW_S: Final = 60.0
# Weights grow instead of sums decaying; so many windows on, all are scaled back, far from what a float can hold.
_RESCALE_AFTER: Final = 100.0


@dataclass(slots=True)
class LoadSums:
    """Sums over the past, each summand weighted by exp(-age / 60 s): quotients of two are moving averages.

    Attributes:
        observed_s: Time since a call was first open; tends to 60.
        call_s: Open calls, integrated over time.
        turns: Turns after a call's first prompt that have begun to speak, or have ended without.
        turn_ms: Work of them up to their first words: prompt, and decoding until a chunk was complete.
        turn_ms2: The squares of that.
        first_words: Turns that have spoken.
        first_words_s: Times from their arrival to their first words.
        opening_ms: Work of calls' first requests, up to the first words where that is a turn.
        openings: First prompts that were computed.
        reply_ms: Decoding of replies after their first words.
        speech_s: How long the replies that have ended take to play.
        hint_ms: Work of early prefill after the opening prompt.
        soft_ms: All work of soft calls.
        ended: Calls that were closed, of those that had a reply.
    """

    observed_s: float = 0.0
    call_s: float = 0.0
    turns: float = 0.0
    turn_ms: float = 0.0
    turn_ms2: float = 0.0
    first_words: float = 0.0
    first_words_s: float = 0.0
    opening_ms: float = 0.0
    openings: float = 0.0
    reply_ms: float = 0.0
    speech_s: float = 0.0
    hint_ms: float = 0.0
    soft_ms: float = 0.0
    ended: float = 0.0

    def scaled(self, factor: float) -> LoadSums:
        """Return all of them times ``factor``."""
        return LoadSums(*(getattr(self, f.name) * factor for f in fields(self)))


@dataclass(slots=True)
class _Call:
    begun: bool = False
    answered: bool = False


@dataclass(slots=True)
class _Work:
    opening: bool
    ms: float = 0.0
    spoken: bool = False


class CallLoad:
    """Measures the work of calls that are held until they end; of soft calls only its sum, of one-shots nothing.

    Holds no clock: times are arguments, in seconds, and never go back.

    Attributes:
        target_s: When first words are due after a turn's arrival, by the latest paced turn; None so far.
    """

    def __init__(self) -> None:
        self.target_s: float | None = None
        self._sums = LoadSums()
        self._start_s = 0.0
        self._counted_s: float | None = None
        self._calls: dict[LiveCall, _Call] = {}
        self._work: dict[Request, _Work] = {}

    @property
    def calls(self) -> int:
        """Held calls that are open now."""
        return len(self._calls)

    def is_opening(self, call: LiveCall) -> bool:
        """Whether a held call's first prompt is not in the cache yet."""
        return call in self._calls and not self._calls[call].begun

    def opened(self, call: LiveCall, now_s: float) -> None:
        """Note a call that will be held."""
        if self._counted_s is None:
            self._start_s = self._counted_s = now_s
        self._count(now_s)
        self._calls[call] = _Call()

    def closed(self, call: LiveCall, now_s: float) -> None:
        """Note the end of a call; of one that was not noted, or has ended already, nothing."""
        if call in self._calls:
            weight = self._count(now_s)
            self._sums.ended += weight * self._calls.pop(call).answered

    def submitted(self, request: Request) -> None:
        """Note a request before the first work for it."""
        call = self._calls.get(request.call)
        if call is None or (call.begun and request.kind is not RequestKind.TURN):
            return
        self._work[request] = _Work(opening=not call.begun)
        if request.turn is not None and request.turn.speech is not None:
            self.target_s = request.turn.speech.target_s

    def stepped(self, entries: Sequence[BatchEntry], requests: Sequence[Request], took_ms: float, now_s: float) -> None:
        """Note a step, each entry's tokens with their share of its time; after what came of it was applied."""
        if self._counted_s is None:
            return
        weight = self._weight(now_s)
        tokens = sum(len(entry.tokens) for entry in entries)
        for entry, request in zip(entries, requests, strict=True):
            self._add(request, took_ms * len(entry.tokens) / tokens, weight)
        for request in list(self._work):
            self._settle(request, weight)

    def sums(self, now_s: float) -> LoadSums:
        """Return the sums as of now."""
        if self._counted_s is None:
            return LoadSums()
        weight = self._count(now_s)
        return self._sums.scaled(1 / weight)

    def _add(self, request: Request, ms: float, weight: float) -> None:
        work = self._work.get(request)
        if work is not None and not work.spoken:
            work.ms += ms
        elif request.call.one_shot:
            return
        elif request.call.soft:
            self._sums.soft_ms += weight * ms
        elif request.kind is RequestKind.TURN:
            self._sums.reply_ms += weight * ms
        else:
            self._sums.hint_ms += weight * ms

    def _settle(self, request: Request, weight: float) -> None:
        work, call = self._work[request], self._calls.get(request.call)
        over = request.state is RequestState.DONE
        if not work.spoken and (over or request.first_chunk_s is not None):
            work.spoken = True
            self._begun(request, work, weight)
            if call is not None:
                call.begun = call.begun or not request.remaining_tokens
                call.answered = call.answered or request.first_chunk_s is not None
        if over:
            del self._work[request]
            if request.turn is not None and request.turn.speech is not None:
                self._sums.speech_s += weight * request.turn.speech.total_s

    def _begun(self, request: Request, work: _Work, weight: float) -> None:
        sums = self._sums
        if work.opening:
            sums.opening_ms += weight * work.ms
            sums.openings += weight * (not request.remaining_tokens)
            return
        sums.turns += weight
        sums.turn_ms += weight * work.ms
        sums.turn_ms2 += weight * work.ms**2
        if request.first_chunk_s is not None:
            sums.first_words += weight
            sums.first_words_s += weight * (request.first_chunk_s - request.arrival_s)

    def _count(self, now_s: float) -> float:
        """Integrate over the time since the last count, in which no call came or went; returns the weight of now."""
        weight = self._weight(now_s)
        if self._counted_s is not None:
            time_s = _WINDOW_S * weight * -math.expm1((self._counted_s - now_s) / _WINDOW_S)
            self._sums.observed_s += time_s
            self._sums.call_s += time_s * len(self._calls)
            self._counted_s = now_s
        return weight

    def _weight(self, now_s: float) -> float:
        windows = (now_s - self._start_s) / _WINDOW_S
        if windows > _RESCALE_AFTER:
            self._sums = self._sums.scaled(math.exp(-windows))
            self._start_s, windows = now_s, 0.0
        return math.exp(windows)
