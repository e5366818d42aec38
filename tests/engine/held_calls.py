"""HeldCalls: calls whose work is known, noted in a CallLoad on virtual time."""

from __future__ import annotations

from voice_llm.backend.base import BatchEntry
from voice_llm.config.engine import AdmissionRule
from voice_llm.config.sampling import SamplingParams
from voice_llm.engine import IsolationKey, LiveCall, Request, RequestKind, RequestState, Speech, TurnWork
from voice_llm.engine.admission import Admission
from voice_llm.engine.load import CallLoad
from voice_llm.testing import FakeBackend, VirtualClock
from voice_llm.text import TextPipeline

KEY = IsolationKey("fake", "test", "acme")
CHARS_PER_S = 15.0
_ROW = BatchEntry(0, 0, (1,), True)


class HeldCalls:
    """Calls that take turns one after the other, evenly in time, each with the same work."""

    def __init__(self, *, calls: int = 0, rule: AdmissionRule = "forecast", target_s: float | None = 0.8) -> None:
        self.clock = VirtualClock()
        self.load = CallLoad()
        self.admission = Admission(self.load, rule)
        self.target_s = target_s
        self.calls: list[LiveCall] = []
        self._backend = FakeBackend()
        for _ in range(calls):
            self.open()

    def open(self) -> None:
        call = LiveCall(f"call-{len(self.calls)}", KEY)
        self.load.opened(call, self.clock())
        self.calls.append(call)
        self.step(self._request(call, RequestKind.PREFILL), 0.0, done=True)

    def close(self, number: int = 1) -> None:
        for _ in range(number):
            self.admission.note_held(self.clock())
            self.load.closed(self.calls.pop(0), self.clock())

    def talk(
        self,
        time_s: float,
        *,
        every_s: float,
        work_ms: float,
        reply_ms: float = 0.0,
        hint_ms: float = 0.0,
        waited_s: float = 0.0,
        spoken_chars: int = 0,
    ) -> None:
        """Let so much time pass, in which each call has a turn every ``every_s``."""
        turns = round(time_s / every_s * len(self.calls))
        for number in range(turns):
            self.clock.advance(time_s / turns)
            self.turn(self.calls[number % len(self.calls)], work_ms, reply_ms, hint_ms, waited_s, spoken_chars)

    def turn(
        self,
        call: LiveCall,
        work_ms: float,
        reply_ms: float = 0.0,
        hint_ms: float = 0.0,
        waited_s: float = 0.0,
        spoken_chars: int = 0,
    ) -> None:
        now_s = self.clock()
        if hint_ms:
            self.step(self._request(call, RequestKind.PREFILL), hint_ms, done=True)
        turn = self._request(call, RequestKind.TURN)
        turn.arrival_s = now_s - work_ms / 1e3 - waited_s
        turn.first_chunk_s = now_s
        self.step(turn, work_ms)
        if turn.work.speech is not None and spoken_chars:
            turn.work.speech.sent("x" * spoken_chars, now_s)
        self.step(turn, reply_ms, done=True)

    def soft_work(self, took_ms: float) -> None:
        """Note work of a call that nobody ends."""
        self.step(self._request(LiveCall("soft", KEY, soft=True), RequestKind.TURN), took_ms, done=True)

    def step(self, request: Request, took_ms: float, *, done: bool = False) -> None:
        if done:
            request.computed_tokens = len(request.prompt)
            request.state = RequestState.DONE
        self.load.stepped([_ROW], [request], took_ms, self.clock())

    def _request(self, call: LiveCall, kind: RequestKind) -> Request:
        work = None
        if kind is RequestKind.TURN:
            speech = None if self.target_s is None else Speech(chars_per_s=CHARS_PER_S, target_s=self.target_s)
            work = TurnWork(self._backend.new_sampler(SamplingParams()), TextPipeline(), 48, speech)
        request = Request(call, kind, [1, 2], self.clock(), work)
        self.load.submitted(request)
        return request
