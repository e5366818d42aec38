"""Proofs about barge-in: how soon the engine lets go of an interrupted reply, and what the next turn computes again.

Eight callers talk at once and let nobody finish. They interrupt at random moments, so in the queue, between two chunks
of the prompt and in the middle of the reply, and tell in each of the three ways what they have heard.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from voice_llm import Engine, Profile
from voice_llm.backend.llama import LlamaBackend, LlamaModel
from voice_llm.config import EngineConfig, SamplingParams
from voice_llm.engine import Request
from voice_llm.engine.prefix import common_prefix_length
from voice_llm.events import FinishReason
from voice_llm.observer import Observer
from voice_llm.prompt import Message
from voice_llm.runtime.submission import Submission
from voice_llm.session import CallError, CallSession, Chunk, SessionEvent, TurnEnd
from voice_llm.simulator import CallScript, make_scripts

from .common import PROFILE, Proof, engine_config, model_path, percentile

CALLERS: Final = 8
LEAST_BARGE_INS: Final = 200
TURNS: Final = 9
MOST_STEPS: Final = 1
MOST_TOKENS: Final = 3
_SEED: Final = 5
_PARAMS: Final = SamplingParams(temperature=0.0, max_tokens=96)
# A whole reply is paced to the caller's ear; of the last one only the prompt is of interest.
_LAST_PARAMS: Final = _PARAMS.replace(max_tokens=8)
# So that no turn has to be left out of the history: that would be another measurement.
_CONTEXT: Final = 4096
# Some interrupt before they have heard anything, some soon after the first words.
_IMPATIENCE_S: Final = 1.0
_LISTENS_S: Final = 0.8
_HEARS_FIRST: Final = 0.5
# A question may come with retrieved text, so that its prompt takes many steps.
_FACTS: Final = 0.4
_FACT_CHARS: Final = 700
# The words that a caller interrupts with take time; some transports tell of them only together with the next turn.
_SPEAKS_S: Final = (0.8, 2.0)
_AT_ONCE: Final = 0.25
# How far a turn was whose prompt was in the cache as a whole.
_PROMPT_DONE: Final = ("talking", "done")


@dataclass(slots=True)
class BargeIn:
    """One reply that was spoken over.

    Attributes:
        state: How far its turn was when the engine heard of it: as in ``RequestState``, so ``done`` where all of the
            reply had been made, or ``preparing`` where the prompt was still being written.
        asked_s: When the caller was heard, at the session's edge.
        freed_s: When the engine let go of it.
        tokens_after: How many tokens were drawn for it after ``asked_s``.
    """

    state: str
    asked_s: float
    freed_s: float
    tokens_after: int = 0

    @property
    def in_engine(self) -> bool:
        """Whether the engine had something to let go of."""
        return self.state in ("queued", "prefilling", "talking")


@dataclass(frozen=True, slots=True)
class Reuse:
    """What the turn after a barge-in found in the cache.

    Attributes:
        state: How far the interrupted turn was.
        missing: How many tokens before its own message it had to compute.
        recomputed: How many of these had been computed before.
        at_once: Whether it came in the same moment as the interruption, and not after words of the caller.
    """

    state: str
    missing: int
    recomputed: int
    at_once: bool = False


@dataclass(slots=True)
class StepLog(Observer):
    """When an engine's steps were."""

    spans_s: list[tuple[float, float]] = field(default_factory=list)

    def step(self, kind: str, rows: int, took_s: float) -> None:
        """See ``Observer``."""
        now_s = time.monotonic()
        self.spans_s.append((now_s - took_s, now_s))

    def between(self, from_s: float, to_s: float) -> list[float]:
        """Return the lengths of the steps that ended in a time, each from its own beginning on, in seconds."""
        ends_s = [end_s for _, end_s in self.spans_s]
        spans_s = self.spans_s[bisect_right(ends_s, from_s) : bisect_right(ends_s, to_s)]
        return [end_s - start_s for start_s, end_s in spans_s]


async def barge_in(*, callers: int = CALLERS, least: int = LEAST_BARGE_INS, turns: int = TURNS) -> list[Proof]:
    """Let callers phone, for so many turns a call, until so many replies were spoken over; see the module."""
    steps = StepLog()
    barge_ins: list[BargeIn] = []
    reuses: list[Reuse] = []
    config = engine_config(sequences=callers, context_per_call=_CONTEXT)
    async with _running(config, steps) as engine:
        releases = Releases(engine)
        for round_ in itertools.count():
            if reuses and sum(b.in_engine for b in barge_ins) >= least:
                break
            scripts = make_scripts(_SEED + round_, callers, turns=turns)
            made = [Caller(engine, releases, s, random.Random(f"{round_}/{n}")) for n, s in enumerate(scripts)]
            await asyncio.gather(*(caller.phone() for caller in made))
            barge_ins += [b for caller in made for b in caller.barge_ins]
            reuses += [r for caller in made for r in caller.reuses]
    return [released(barge_ins, steps), reused(reuses)]


@asynccontextmanager
async def _running(config: EngineConfig, observer: Observer) -> AsyncIterator[Engine]:
    profile = Profile.load(PROFILE).model_copy(update={"system_prompt": "", "engine": config})
    engine = await Engine.start(LlamaBackend(LlamaModel(model_path()), config), profile, observer=observer)
    try:
        yield engine
    finally:
        await engine.close()


@dataclass(frozen=True, slots=True)
class Release:
    """An interrupted request: how far it was, when the engine let go of it, and what its call held in the cache."""

    request: Request
    state: str
    at_s: float
    held: list[int]


class Releases:
    """Notes when an engine lets go of interrupted requests."""

    def __init__(self, engine: Engine) -> None:
        self._noted: dict[Request, Release] = {}
        self._cancel = engine._batcher.cancel
        engine._batcher.cancel = self._cancel_and_note  # type: ignore[method-assign]

    def of(self, request: Request | None) -> Release | None:
        """Return when a request was let go of; None where it never was, or was never made."""
        return None if request is None else self._noted.get(request)

    def _cancel_and_note(
        self, request: Request, reason: FinishReason = FinishReason.CANCELLED, *, asked_s: float | None = None
    ) -> None:
        state, sequence = request.state.value, request.call.sequence
        held = list(sequence.tokens) if sequence is not None else []
        self._cancel(request, reason, asked_s=asked_s)
        if reason is FinishReason.INTERRUPTED:
            # Only the first time counts: a request that is over stays as it is.
            self._noted.setdefault(request, Release(request, state, time.monotonic(), held))


@dataclass(slots=True)
class _Turn:
    """One question, what came back, and when it was spoken over."""

    listening: asyncio.Task[TurnEnd]
    told: list[Chunk]
    speaks: asyncio.Event
    submission: Submission
    known: list[int] = field(default_factory=list)
    asked_s: float = math.inf
    tokens: int = 0
    was_complete: bool = False
    followed_at_once: bool = False


class Caller:
    """Somebody who speaks over each reply but the last.

    Args:
        engine: Where the call runs.
        releases: Tells when replies were let go.
        script: What is said.
        chance: Chooses the moments.
    """

    def __init__(self, engine: Engine, releases: Releases, script: CallScript, chance: random.Random) -> None:
        self._engine = engine
        self._releases = releases
        self._script = script
        self._chance = chance
        self._session = CallSession(
            engine, system_prompt=script.system_prompt, rag_context=script.rag_context, params=_PARAMS
        )
        self._turns: list[_Turn] = []
        self.barge_ins: list[BargeIn] = []
        self.reuses: list[Reuse] = []

    async def phone(self) -> None:
        """Hold the whole call."""
        async with self._session:
            await self._session.start()
            for said in self._script.turns[:-1]:
                turn = await self._ask(said.text)
                await self._wait_for_the_moment(turn)
                self._interrupt(turn)
                if not turn.followed_at_once:
                    await turn.listening
                    await asyncio.sleep(self._chance.uniform(*_SPEAKS_S))
            last = await self._ask(self._script.turns[-1].text, _LAST_PARAMS)
            await last.listening
        await self._evaluate()

    async def _ask(self, text: str, params: SamplingParams = _PARAMS) -> _Turn:
        messages = [*self._session.messages, Message("user", "")]
        facts = (self._script.rag_context or "")[:_FACT_CHARS] if self._chance.random() < _FACTS else None
        turn_id = f"t{len(self._turns)}"
        events = self._session.start_turn(text, turn_id=turn_id, rag_context=facts, params=params)
        told: list[Chunk] = []
        speaks = asyncio.Event()
        turn = _Turn(asyncio.create_task(_listen(events, told, speaks)), told, speaks, self._submission())
        self._turns.append(turn)
        # Behind the turn's own prompt, so that this delays none.
        turn.known = await asyncio.get_running_loop().run_in_executor(
            self._engine._prompts, self._before_question, messages
        )
        return turn

    def _submission(self) -> Submission:
        """Return the way into the engine of the turn that was begun last: its request may be made only later."""
        running = self._session._turn
        assert running is not None
        submission = getattr(running.stream._cancel, "__self__", None)
        assert isinstance(submission, Submission)
        return submission

    def _before_question(self, messages: Sequence[Message]) -> list[int]:
        """Return the next prompt up to the header of the message that the caller is about to say."""
        call = self._session._open_call()
        tokens = call._tokens(messages, self._script.rag_context, (), _PARAMS.max_tokens, open_ended=True)
        header = self._engine.backend.control_tokens["<|im_start|>"]
        return tokens[: len(tokens) - 1 - tokens[::-1].index(header)]

    async def _wait_for_the_moment(self, turn: _Turn) -> None:
        if self._chance.random() < _HEARS_FIRST:
            await turn.speaks.wait()
            await asyncio.sleep(self._chance.uniform(0, _LISTENS_S))
        else:
            await asyncio.sleep(self._chance.uniform(0, _IMPATIENCE_S))

    def _interrupt(self, turn: _Turn) -> None:
        """Speak over the reply; by what the transport quotes, what it has reported, or nothing but the time."""
        how = self._chance.choice(("quoted", "reported", "estimated"))
        heard = turn.told[: self._chance.randint(0, len(turn.told))]
        words = "".join(chunk.text for chunk in heard).split(" ")
        request = turn.submission.request
        turn.tokens = len(request.turn.generated) if request is not None and request.turn is not None else 0
        running = self._session._turn
        turn.was_complete = running is None or running.stream.finished is not None
        turn.followed_at_once = self._chance.random() < _AT_ONCE
        turn.asked_s = time.monotonic()
        if how == "reported" and heard:
            self._session.played(heard[-1].turn_id, heard[-1].index, self._chance.randint(0, 3000))
        self._session.interrupt(" ".join(words[: self._chance.randint(0, len(words))]) if how == "quoted" else None)

    async def _evaluate(self) -> None:
        ends = [await turn.listening for turn in self._turns]
        for turn, following, end in zip(self._turns, self._turns[1:], ends[1:], strict=False):
            # By the request: where a step takes long, it is let go of only after the next turn was spoken over too.
            found = self._releases.of(turn.submission.request)
            if found is not None:
                drawn = len(found.request.work.generated) - turn.tokens
                barge_in = BargeIn(found.state, turn.asked_s, found.at_s, drawn)
            else:
                barge_in = BargeIn("done" if turn.was_complete else "preparing", turn.asked_s, turn.asked_s)
            self.barge_ins.append(barge_in)
            held = found.held if found is not None else []
            if end.usage.prompt_tokens:  # else it was spoken over before it began itself
                reuse = reuse_of(barge_in.state, held, following.known, end.usage.cached_tokens)
                self.reuses.append(replace(reuse, at_once=turn.followed_at_once))


def reuse_of(state: str, held: list[int], known: list[int], cached_tokens: int) -> Reuse:
    """Compare what a turn found in the cache with what its call had computed of it.

    Args:
        state: How far the interrupted turn before it was.
        held: What its call had in the cache then.
        known: Its prompt up to its own message.
        cached_tokens: How much of its prompt was in the cache.
    """
    # A whole prompt and a reply that was heard are all there; of others, what had been computed by then.
    had = len(known) if state in _PROMPT_DONE else common_prefix_length(held, known)
    missing, recomputed = (max(0, tokens - cached_tokens) for tokens in (len(known), had))
    return Reuse(state, missing, recomputed)


async def _listen(events: AsyncIterator[SessionEvent], told: list[Chunk], speaks: asyncio.Event) -> TurnEnd:
    async for event in events:
        if isinstance(event, Chunk):
            told.append(event)
            speaks.set()
        elif isinstance(event, TurnEnd):
            speaks.set()
            return event
        elif isinstance(event, CallError):
            raise RuntimeError(f"a turn failed: {event.message}")
    raise RuntimeError("a turn had no end")


def released(barge_ins: Sequence[BargeIn], steps: StepLog) -> Proof:
    """Judge how soon rows were free."""
    stopped = [b for b in barge_ins if b.in_engine]
    waited = [steps.between(b.asked_s, b.freed_s) for b in stopped]
    counts = [len(took_s) for took_s in waited]
    latencies_ms = [(b.freed_s - b.asked_s) * 1e3 for b in stopped]
    running_ms = [took_s[0] * 1e3 for took_s in waited if took_s]
    beyond_ms = [ms - sum(took_s[:1]) * 1e3 for ms, took_s in zip(latencies_ms, waited, strict=True)]
    p99_steps = percentile(counts, 0.99)
    tokens_after = [b.tokens_after for b in stopped]
    return Proof(
        "barge_in_row",
        f"{CALLERS} calls talk and are spoken over at random moments: the row is free within one step, p99",
        p99_steps <= MOST_STEPS and percentile(tokens_after, 0.99) <= MOST_STEPS,
        {
            "barge_ins": len(stopped),
            "by_state": dict(Counter(b.state for b in barge_ins)),
            "steps_p99": p99_steps,
            "steps_most": max(counts),
            "tokens_after_most": max(tokens_after),
            "freed_ms": _spread(latencies_ms),
            "running_step_ms": _spread(running_ms),
            "beyond_step_ms": _spread(beyond_ms),
        },
    )


def reused(reuses: Sequence[Reuse]) -> Proof:
    """Judge what was computed again."""
    recomputed = [r.recomputed for r in reuses]
    together = [r.recomputed for r in reuses if r.at_once]
    return Proof(
        "barge_in_reuse",
        f"the turn after a barge-in: all tokens before its own message that had been computed are reused, but "
        f"{MOST_TOKENS} at most",
        max(recomputed) <= MOST_TOKENS,
        {
            "turns": len(reuses),
            "by_state": dict(Counter(r.state for r in reuses)),
            "recomputed_most": max(recomputed),
            "turns_that_recomputed": sum(tokens > 0 for tokens in recomputed),
            "at_once": {"turns": len(together), "recomputed_most": max(together, default=0)},
            # Of a prompt that was given up half-way: what was left of it when the next turn came.
            "never_computed_most": {
                how: max((r.missing - r.recomputed for r in reuses if r.at_once is at_once), default=0)
                for how, at_once in (("at_once", True), ("after_words", False))
            },
        },
    )


def _spread(values_ms: Sequence[float]) -> dict[str, float]:
    return {
        "p50": round(percentile(values_ms, 0.50), 1),
        "p99": round(percentile(values_ms, 0.99), 1),
        "worst": round(max(values_ms), 1),
    }
