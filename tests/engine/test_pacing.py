"""Pacing: whoever hears nothing yet comes first, whoever has enough to hear waits, and nobody falls silent."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.driver import Driver, chat
from tests.engine.test_scheduler import Floor, make, talker
from voice_llm.config import EngineConfig
from voice_llm.engine import CostModel, DecodeShape, Plan, Request, RequestState, Speech

pytestmark = pytest.mark.unit

CHARS_PER_S = 15.0
CHARS_A_TOKEN = 4
CHUNK_TOKENS = 15
TARGET_S = 0.8


def speaking(sequence_id: int, *, heard_s: float, now_s: float = 0.0, reply: int = 10**9) -> Request:
    """A reply of which the caller has so many seconds still to hear."""
    request = talker(sequence_id, reply=reply)
    request.work.speech = Speech(chars_per_s=CHARS_PER_S, target_s=TARGET_S)
    request.work.speech.sent("x" * round(heard_s * CHARS_PER_S), now_s)
    request.work.last_token_s = now_s
    return request


def unspoken(sequence_id: int, *, arrival_s: float = 0.0) -> Request:
    request = talker(sequence_id)
    request.arrival_s = arrival_s
    request.work.speech = Speech(chars_per_s=CHARS_PER_S, target_s=TARGET_S)
    return request


def turn(sequence_id: int, *, prompt: int, arrival_s: float = 0.0, reply: int = 48) -> Request:
    request = make(sequence_id, prompt=prompt, reply=reply, arrival_s=arrival_s)
    request.work.speech = Speech(chars_per_s=CHARS_PER_S, target_s=TARGET_S)
    return request


def ids(plan: Plan) -> list[int]:
    return [request.sequence.id for request in plan.decode]


class Stage(Floor):
    """A floor on which replies are spoken: a chunk every so many tokens."""

    def __init__(self, *, max_ahead_s: float = 20.0, cost: CostModel | None = None) -> None:
        super().__init__(cost=cost)
        self.silences: list[float] = []
        self.first_chunk_s: dict[Request, float] = {}
        self.scheduler = type(self.scheduler)(
            max_step_ms=self.max_step_ms, max_batch_tokens=512, split_kv=True, max_ahead_s=max_ahead_s
        )
        self._sounds_until_s: dict[Request, float] = {}

    def _check_prefill(self, plan: Plan, talking: list[Request]) -> None:
        assert self.predicted_ms(plan) <= self.longest_ms(plan, talking) + 1e-6

    def _carry_out(self, plan: Plan) -> None:
        super()._carry_out(plan)
        for request in plan.decode:
            work = request.work
            over = request.state is RequestState.DONE
            if work.speech is not None and (over or len(work.generated) - work.chunked_tokens >= CHUNK_TOKENS):
                self._speak(request, work.speech)

    def _speak(self, request: Request, speech: Speech) -> None:
        work = request.work
        text = "x" * CHARS_A_TOKEN * (len(work.generated) - work.chunked_tokens)
        work.chunked_tokens = len(work.generated)
        if speech.begun:
            self.silences.append(max(0.0, self.now_s - self._sounds_until_s[request]))
        else:
            self.first_chunk_s[request] = self.now_s - request.arrival_s
        starts_s = max(self.now_s, self._sounds_until_s.get(request, 0.0))
        self._sounds_until_s[request] = starts_s + len(text) / CHARS_PER_S
        speech.sent(text, self.now_s)

    def ms_of(self, request: Request) -> float:
        """What a request takes on a machine of its own."""
        row_ms = self.cost.decode_ms(DecodeShape.of([(0, len(request.prompt))], split_kv=True))
        return self.cost.prefill_ms(len(request.prompt), 0) + request.work.max_tokens * row_ms

    def run(self, coming: list[Request]) -> None:
        """Carry everything out, each request from its arrival on."""
        while coming or self.requests:
            self.requests += [r for r in coming if r.arrival_s <= self.now_s]
            coming = [r for r in coming if r.arrival_s > self.now_s]
            plan = self.step()
            if not plan:
                times = [r.arrival_s for r in coming] + ([] if plan.wake_s is None else [plan.wake_s])
                assert times, "there is work, but nothing is planned"
                self.now_s = max(self.now_s + 1e-6, min(times))


def test_caller_who_hears_nothing_goes_before_those_who_have_enough_to_hear() -> None:
    floor = Floor()
    floor.requests = [speaking(0, heard_s=15), unspoken(4), speaking(8, heard_s=15)]
    assert ids(floor.step()) == [4]


def test_reply_that_can_wait_rides_along_where_it_closes_a_gap() -> None:
    cost = CostModel()
    cost.decode = type(cost.decode)([10.0, 1.0, 0.0])  # a micro-batch costs much, a row little
    floor = Floor(cost=cost)
    floor.requests = [unspoken(0), speaking(1, heard_s=15), unspoken(2), speaking(9, heard_s=15)]
    assert ids(floor.step()) == [0, 1, 2]


def test_prompt_of_a_turn_goes_before_replies_that_can_wait() -> None:
    floor = Stage()
    floor.requests = [speaking(0, heard_s=15), turn(1, prompt=600)]
    kinds = ["d" if floor.step().decode else "p" for _ in range(6)]
    assert "d" not in kinds


@pytest.mark.parametrize(("heard_s", "tokens"), [(15.0, 64), (1.5, 16)])
def test_prompt_comes_in_larger_chunks_where_replies_can_wait_for_them(heard_s: float, tokens: int) -> None:
    stage = Stage()
    stage.requests = [speaking(0, heard_s=heard_s), turn(1, prompt=400)]
    (chunk,) = stage.step().prefill or stage.step().prefill
    assert chunk.tokens == tokens


def test_prompt_comes_in_small_chunks_where_somebody_waits_for_first_words() -> None:
    stage = Stage()
    stage.requests = [unspoken(0), turn(1, prompt=40, arrival_s=-0.5)]
    (chunk,) = stage.step().prefill or stage.step().prefill
    assert chunk.tokens == 16


def test_reply_waits_for_a_prompt_that_is_done_before_its_caller_runs_out_of_speech() -> None:
    stage = Stage()
    reply, prompt = speaking(0, heard_s=2), turn(1, prompt=200)
    stage.requests = [reply, prompt]
    while prompt.state is RequestState.PREFILLING:
        assert stage.step().prefill
    assert reply.work.speech is not None
    assert reply.work.speech.slack_s(stage.now_s) > 0.5


def test_hint_goes_before_replies_that_can_wait_and_waits_for_who_hears_nothing() -> None:
    floor = Floor()
    floor.requests = [speaking(0, heard_s=15), make(1, prompt=200, hint=True)]
    assert floor.step().prefill
    floor.requests.append(unspoken(2))
    assert ids(floor.step()) == [2]


def test_first_words_are_finished_before_a_prompt_that_came_later_and_is_long() -> None:
    floor = Floor()
    floor.requests = [unspoken(0), turn(1, prompt=1000, arrival_s=0.01)]
    floor.now_s = 0.02
    assert all(ids(floor.step()) == [0] for _ in range(10))


def test_reply_that_is_about_to_fall_silent_goes_on_alone_but_prompts_are_not_forgotten() -> None:
    floor = Floor()
    floor.requests = [speaking(0, heard_s=0.5), turn(1, prompt=1000)]
    kinds = "".join("d" if floor.step().decode else "p" for _ in range(20))
    assert "ddd" in kinds
    assert "p" in kinds
    assert "pp" not in kinds


def test_replies_that_can_wait_go_on_together_where_nothing_is_urgent() -> None:
    floor = Floor()
    floor.requests = [speaking(i, heard_s=10) for i in range(4)]
    assert ids(floor.step()) == [0, 1, 2, 3]


def test_replies_that_can_wait_split_around_a_size_that_is_dear() -> None:
    floor = Floor()
    for _ in range(40):
        for rows in (1, 2, 3, 4, 5, 6):
            floor.cost.observe_decode(DecodeShape(((rows, 100),)), 6 + 3 * (9 if rows == 5 else rows))
    floor.requests = [speaking(i, heard_s=10 + i) for i in range(5)]
    assert ids(floor.step()) == [0, 1, 2, 3], "the one with the most to hear waits"
    floor.requests = [speaking(i, heard_s=10 + i) for i in range(6)]
    assert ids(floor.step()) == [0, 1, 2, 3, 4, 5]
    floor.requests = [speaking(i, heard_s=0.4) for i in range(5)]
    assert ids(floor.step()) == [0, 1, 2, 3, 4], "nobody waits who is about to fall silent"


def test_nothing_is_decoded_further_ahead_than_the_bound_and_it_goes_on_in_time() -> None:
    stage = Stage(max_ahead_s=8.0)
    stage.requests = [speaking(0, heard_s=12)]
    plan = stage.scheduler.plan(0.0, stage.requests, stage.cost)
    assert not plan
    assert plan.wake_s is not None
    assert 3.0 < plan.wake_s < 4.5
    assert stage.scheduler.plan(plan.wake_s, stage.requests, stage.cost).decode


def test_one_shot_waits_for_callers_and_is_not_forgotten() -> None:
    floor = Floor()
    summary = talker(0)
    summary.call.one_shot = True
    floor.requests = [summary, unspoken(4)]
    plans = [ids(floor.step()) for _ in range(200)]
    assert plans[0] == [4]
    assert sum(0 in plan for plan in plans) >= 1
    floor.requests.remove(floor.requests[1])
    assert ids(floor.step()) == [0]


def test_one_shot_s_prompt_waits_for_a_caller_s() -> None:
    floor = Floor()
    summary, asked = make(0, prompt=100), turn(1, prompt=600, arrival_s=0.5)
    summary.call.one_shot = True
    floor.requests, floor.now_s = [summary, asked], 0.5
    assert floor.step().prefill[0].request is asked


@pytest.mark.parametrize("heard_s", [None, 0.4])
def test_hint_waits_as_long_as_somebody_hears_nothing_or_is_about_to(heard_s: float | None) -> None:
    floor = Floor()
    needy = unspoken(0) if heard_s is None else speaking(0, heard_s=heard_s)
    floor.requests = [needy, make(1, prompt=200, hint=True)]
    assert all(ids(floor.step()) == [0] for _ in range(20))


ARRIVALS = st.lists(st.tuples(st.floats(0, 60), st.integers(10, 60), st.integers(1, 64)), min_size=1, max_size=24)


@settings(max_examples=60, deadline=None)
@given(ARRIVALS)
def test_nobody_falls_silent_while_there_is_capacity(arrivals: list[tuple[float, int, int]]) -> None:
    """At most 24 replies in a minute keep this machine busy for less than half of it."""
    stage = Stage()
    coming = [
        turn(i, prompt=prompt, reply=reply, arrival_s=arrival) for i, (arrival, prompt, reply) in enumerate(arrivals)
    ]
    stage.run(coming)
    assert len(stage.first_chunk_s) == len(arrivals)
    assert max(stage.silences, default=0.0) == 0.0


@settings(max_examples=40, deadline=None)
@given(ARRIVALS, st.integers(300, 1500))
def test_long_prompt_and_short_turns_let_each_other_live(arrivals: list[tuple[float, int, int]], long: int) -> None:
    stage = Stage()
    opening = turn(30, prompt=long)
    short = [turn(i, prompt=prompt, reply=reply, arrival_s=at) for i, (at, prompt, reply) in enumerate(arrivals)]
    stage.run([opening, *short])
    work_s = sum(stage.ms_of(r) for r in short) / 1e3
    alone_s = stage.ms_of(opening) / 1e3
    assert stage.first_chunk_s[opening] <= 2 * alone_s + work_s + 1.0


HINTS = st.lists(st.tuples(st.floats(0, 60), st.integers(10, 400)), max_size=20)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(ARRIVALS, HINTS)
def test_early_prefill_makes_no_turn_slower_by_more_than_five_steps(
    arrivals: list[tuple[float, int, int]], hinted: list[tuple[float, int]]
) -> None:
    def first_words(hints: list[Request]) -> list[float]:
        stage = Stage()
        turns = [turn(i, prompt=p, reply=reply, arrival_s=at) for i, (at, p, reply) in enumerate(arrivals)]
        stage.run([*turns, *hints])
        return [stage.first_chunk_s[t] for t in turns]

    hints = [make(100 + i, prompt=prompt, hint=True, arrival_s=at) for i, (at, prompt) in enumerate(hinted)]
    for with_hints, without in zip(first_words(hints), first_words([]), strict=True):
        assert with_hints <= without + 0.5


def test_batcher_says_when_a_reply_goes_on_that_is_far_ahead_of_the_ear() -> None:
    driver = Driver(config=EngineConfig(max_ahead_s=2.0), reply=lambda _: "A sentence of some length. " * 10)
    call = driver.open()
    request = driver.turn(call, chat("Hello?"), max_tokens=400)
    request.work.speech = Speech(chars_per_s=CHARS_PER_S, target_s=TARGET_S)
    rests = 0
    for _ in range(3000):
        if not driver.batcher.has_work:
            break
        driver.step()
        if driver.batcher.wake_s is not None:
            rests += 1
            assert driver.batcher.wake_s > driver.clock()
            driver.clock.advance(driver.batcher.wake_s - driver.clock())
    assert driver.finished(request).reason.value == "stop"
    assert rests >= 3
    heard_s = len(driver.text(request)) / CHARS_PER_S
    assert driver.clock() >= heard_s - 2.0 - 4.0, "it was decoded further ahead than the bound and a sentence"


def test_who_waits_for_a_place_does_not_sleep_along_with_a_reply_that_rests() -> None:
    config = EngineConfig(max_ahead_s=2.0)
    driver = Driver(sequences=1, max_calls=2, config=config, reply=lambda _: "A sentence of some length. " * 10)
    resting = driver.turn(driver.open(), chat("Hello?"), max_tokens=400)
    resting.work.speech = Speech(chars_per_s=1.0, target_s=TARGET_S)
    for _ in range(3000):
        driver.step()
        if driver.batcher.wake_s is not None:
            break
    assert driver.batcher.wake_s is not None
    assert driver.batcher.wake_s > driver.clock() + 1.0
    waiting = driver.turn(driver.open(), chat("And me?"))
    driver.step()
    assert waiting.state is RequestState.QUEUED
    assert driver.batcher.wake_s is not None
    assert driver.batcher.wake_s <= driver.clock() + 0.05
    driver.batcher.cancel(resting)
    driver.run()
    assert driver.text(waiting)
