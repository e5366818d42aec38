"""Scheduler: bounded steps, talking calls first, nobody waits for ever."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_llm.config.sampling import SamplingParams
from voice_llm.engine import (
    CostModel,
    DecodeShape,
    IsolationKey,
    KVSequence,
    LiveCall,
    Plan,
    Request,
    RequestKind,
    RequestState,
    Scheduler,
    TurnWork,
)
from voice_llm.engine.decode_cost import DecodeFit
from voice_llm.testing import FakeBackend
from voice_llm.text import TextPipeline

pytestmark = pytest.mark.unit

KEY = IsolationKey("fake", "test", "acme")
SMALLEST_CHUNK = 8
# A step of prompts may be so many times as long where all replies can wait.
LONG_STEP = 3


def make(
    sequence_id: int, *, prompt: int = 10, reply: int = 5, hint: bool = False, arrival_s: float = 0.0, held: int = 0
) -> Request:
    """A request that has its sequence; ``held`` of its prompt are in the cache already."""
    call = LiveCall(f"call-{sequence_id}", KEY)
    call.sequence = KVSequence(sequence_id, call.call_id, [0] * held)
    turn = None if hint else TurnWork(FakeBackend().new_sampler(SamplingParams()), TextPipeline(), reply)
    kind = RequestKind.PREFILL if hint else RequestKind.TURN
    request = Request(call, kind, [0] * prompt, arrival_s, turn, cached_tokens=held, computed_tokens=held)
    request.move(RequestState.PREFILLING)
    return request


def talker(sequence_id: int, *, context: int = 100, reply: int = 10**9) -> Request:
    request = make(sequence_id, prompt=context, held=context, reply=reply)
    request.move(RequestState.TALKING)
    return request


class Floor:
    """Carries plans out, with steps that take what was predicted, and checks each of them."""

    def __init__(
        self,
        *,
        max_step_ms: float = 100.0,
        max_batch_tokens: int = 512,
        split_kv: bool = True,
        cost: CostModel | None = None,
    ) -> None:
        self.max_step_ms = max_step_ms
        self.max_batch_tokens = max_batch_tokens
        self.split_kv = split_kv
        self.cost = cost or CostModel()
        self.scheduler = Scheduler(max_step_ms=max_step_ms, max_batch_tokens=max_batch_tokens, split_kv=split_kv)
        self.now_s = 0.0
        self.requests: list[Request] = []
        self.plans: list[Plan] = []

    def step(self) -> Plan:
        talking = [r for r in self.requests if r.state is RequestState.TALKING]
        plan = self.scheduler.plan(self.now_s, self.requests, self.cost)
        if plan.decode:
            self._check_decode(plan, talking)
        elif plan.prefill:
            self._check_prefill(plan, talking)
        self.now_s += self.predicted_ms(plan) / 1e3
        self._carry_out(plan)
        self.plans.append(plan)
        return plan

    def predicted_ms(self, plan: Plan) -> float:
        if plan.decode:
            contexts = sorted((r.sequence.id, len(r.sequence.tokens)) for r in plan.decode)
            return self.cost.decode_ms(DecodeShape.of(contexts, split_kv=self.split_kv))
        return sum(self.cost.prefill_ms(c.tokens, c.request.computed_tokens) for c in plan.prefill)

    def longest_ms(self, plan: Plan, talking: list[Request]) -> float:
        """How long a step of prompts may be: longer for a caller who waits, where no reply has to go on."""
        waited_for = plan.prefill[0].request.kind is RequestKind.TURN
        has_to_go_on = any(r.work.speech is None or not r.work.speech.begun for r in talking)
        return self.max_step_ms * (LONG_STEP if waited_for and not has_to_go_on else 1)

    def _check_decode(self, plan: Plan, talking: list[Request]) -> None:
        assert not plan.prefill
        assert len(set(plan.decode)) == len(plan.decode) <= self.max_batch_tokens
        assert set(plan.decode) <= set(talking)
        assert len(plan.decode) == 1 or self.predicted_ms(plan) <= self.max_step_ms + 1e-6

    def _check_prefill(self, plan: Plan, talking: list[Request]) -> None:
        assert not (talking and self.plans and self.plans[-1].prefill), "two prefill steps in a row while a call talks"
        chunks = plan.prefill
        assert len({c.request for c in chunks}) == len(chunks)
        assert all(0 < c.tokens <= c.request.remaining_tokens for c in chunks)
        assert sum(c.tokens for c in chunks) <= self.max_batch_tokens
        if self.max_batch_tokens > 2:
            assert all(c.tokens > 1 or len(c.request.prompt) == 1 for c in chunks), "a lone prompt token"
        smallest = len(chunks) == 1 and chunks[0].tokens <= SMALLEST_CHUNK
        assert smallest or self.predicted_ms(plan) <= self.longest_ms(plan, talking) + 1e-6
        waiting = {r.kind for r in self.requests if r.state is RequestState.PREFILLING}
        if RequestKind.TURN in waiting:
            assert all(c.request.kind is RequestKind.TURN for c in chunks)

    def _carry_out(self, plan: Plan) -> None:
        for request in plan.decode:
            request.sequence.tokens.append(0)
            request.work.generated.append(0)
            request.work.last_token_s = self.now_s
        for chunk in plan.prefill:
            chunk.request.computed_tokens += chunk.tokens
            chunk.request.sequence.tokens += [0] * chunk.tokens
            if not chunk.request.remaining_tokens:
                done = chunk.request.kind is RequestKind.PREFILL
                chunk.request.move(RequestState.DONE if done else RequestState.TALKING)
        for request in plan.decode:
            if len(request.work.generated) >= request.work.max_tokens:
                request.move(RequestState.DONE)
        self.requests = [r for r in self.requests if r.state is not RequestState.DONE]

    def steps_until_done(self, request: Request, *, most: int) -> int:
        for count in range(most):
            if request not in self.requests:
                return count
            assert self.step()
        raise AssertionError(f"{request!r} is not done after {most} steps")


REQUESTS = st.lists(
    st.builds(
        lambda prompt, held, reply, hint, arrival: (prompt, min(held, max(0, prompt - 2)), reply, hint, arrival),
        st.integers(1, 700),
        st.integers(0, 700),
        st.integers(1, 12),
        st.booleans(),
        st.floats(0, 3),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(
    REQUESTS,
    st.floats(1, 400),
    st.integers(1, 512),
    st.booleans(),
    st.lists(st.floats(0, 30), min_size=6, max_size=6),
)
def test_any_mix_of_requests_is_done_in_bounded_steps(
    mix: list[tuple[int, int, int, bool, float]],
    max_step_ms: float,
    max_batch_tokens: int,
    split_kv: bool,
    weights: list[float],
) -> None:
    cost = CostModel()
    cost.decode, cost.prefill.weights = DecodeFit(weights[:3]), weights[3:]
    floor = Floor(max_step_ms=max_step_ms, max_batch_tokens=max_batch_tokens, split_kv=split_kv, cost=cost)
    coming = [
        make(i, prompt=prompt, held=held, reply=reply, hint=hint, arrival_s=arrival)
        for i, (prompt, held, reply, hint, arrival) in enumerate(mix)
    ]
    work = sum(r.remaining_tokens + (r.turn.max_tokens if r.turn else 0) for r in coming)
    while coming or floor.requests:
        if not floor.requests:
            floor.now_s = max(floor.now_s, min(r.arrival_s for r in coming))
        floor.requests += [r for r in coming if r.arrival_s <= floor.now_s]
        coming = [r for r in coming if r.arrival_s > floor.now_s]
        assert floor.step(), "there is work, but nothing is planned"
    assert len(floor.plans) <= work
    assert not floor.scheduler.plan(floor.now_s, [], cost)


def test_all_talking_calls_share_a_step_in_order_of_their_sequences() -> None:
    floor = Floor()
    floor.requests = [talker(i) for i in (3, 0, 2, 1)]
    assert [r.sequence.id for r in floor.step().decode] == [0, 1, 2, 3]


def test_more_talkers_than_a_step_holds_take_turns() -> None:
    floor = Floor(max_step_ms=40)
    floor.requests = [talker(i) for i in range(20)]
    rounds = 0
    while min(len(r.work.generated) for r in floor.requests) < 3:
        assert 1 < len(floor.step().decode) < 20
        rounds += 1
    said = [len(r.work.generated) for r in floor.requests]
    assert max(said) - min(said) <= 1
    assert rounds <= 3 * 20 / 5


def test_talkers_in_turn_are_not_held_up_by_prompts_for_more_than_a_step() -> None:
    floor = Floor(max_step_ms=40)
    floor.requests = [*(talker(i) for i in range(12)), make(20, prompt=600), make(21, prompt=600)]
    for _ in range(40):
        floor.step()
    kinds = ["d" if p.decode else "p" for p in floor.plans]
    assert "pp" not in "".join(kinds)
    assert min(len(r.work.generated) for r in floor.requests if r.sequence.id < 12) >= 4


def test_turn_gets_every_other_step_while_others_talk() -> None:
    floor = Floor()
    floor.requests = [talker(0), make(1, prompt=200)]
    kinds = ["decode" if floor.step().decode else "prefill" for _ in range(8)]
    assert kinds == ["decode", "prefill"] * 4


def test_hint_gets_one_step_in_four_while_others_talk_and_is_done_in_the_end() -> None:
    floor = Floor()
    hint = make(1, prompt=200, hint=True)
    floor.requests = [talker(0), hint]
    kinds = ["decode" if floor.step().decode else "prefill" for _ in range(8)]
    assert kinds == ["decode", "decode", "decode", "prefill"] * 2
    floor.steps_until_done(hint, most=80)


def test_hint_has_every_step_while_nobody_talks() -> None:
    floor = Floor()
    hint = make(0, prompt=160, hint=True)
    floor.requests = [hint]
    chunk = floor.step().prefill[0].tokens
    assert floor.steps_until_done(hint, most=100) <= 160 // chunk


def test_turn_goes_before_a_hint_that_came_first() -> None:
    floor = Floor()
    hint, turn = make(0, prompt=500, hint=True), make(1, prompt=100, reply=1, arrival_s=1.0)
    floor.requests = [hint]
    floor.step()
    floor.requests.append(turn)
    assert [c.request for c in floor.step().prefill] == [turn]
    floor.steps_until_done(turn, most=20)
    assert hint in floor.requests


def test_short_prompt_passes_a_long_one() -> None:
    floor = Floor()
    long, short = make(0, prompt=2000), make(1, prompt=20, arrival_s=0.1)
    floor.requests = [long, short]
    floor.now_s = 0.1
    assert floor.step().prefill[0].request is short


def test_long_prompt_is_done_although_short_ones_keep_coming() -> None:
    floor = Floor()
    long = make(0, prompt=400, reply=1)
    floor.requests = [long]
    newest = 0
    while long.remaining_tokens:
        newest += 1
        floor.requests.append(make(newest, prompt=20, reply=1, arrival_s=floor.now_s))
        floor.step()
        assert newest < 200, "the long prompt starves"
    assert newest > 20


def test_prompts_share_a_step_where_there_is_room() -> None:
    floor = Floor()
    floor.requests = [make(0, prompt=5), make(1, prompt=6), make(2, prompt=500)]
    chunks = floor.step().prefill
    assert [c.tokens for c in chunks][:2] == [5, 6]
    assert len(chunks) <= 3


def chunk_sizes(floor: Floor, prompt: int) -> list[int]:
    floor.requests = [make(0, prompt=prompt, hint=True)]
    sizes = []
    while floor.requests:
        sizes.append(floor.step().prefill[0].tokens)
    assert sum(sizes) == prompt
    return sizes


@pytest.mark.parametrize("max_step_ms", [100.0, 150.0, 300.0])
def test_chunks_are_whole_blocks_but_for_the_last(max_step_ms: float) -> None:
    assert all(size % 16 == 0 for size in chunk_sizes(Floor(max_step_ms=max_step_ms), 300)[:-1])


@pytest.mark.parametrize("prompt", [9, 17, 33, 65, 129])
def test_neither_a_chunk_nor_the_rest_is_a_lone_token(prompt: int) -> None:
    for max_step_ms in (1.0, 100.0, 200.0):
        assert 1 not in chunk_sizes(Floor(max_step_ms=max_step_ms), prompt)


def test_step_too_short_for_anything_still_moves_by_a_smallest_chunk() -> None:
    floor = Floor(max_step_ms=1.0)
    floor.requests = [make(0, prompt=100, hint=True)]
    assert [c.tokens for c in floor.step().prefill] == [SMALLEST_CHUNK]


def test_nothing_to_do_is_an_empty_plan() -> None:
    assert not Scheduler(max_step_ms=100, max_batch_tokens=8, split_kv=True).plan(0.0, [], CostModel())
