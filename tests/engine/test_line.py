"""The line of those who hear nothing yet: in time as long as that is possible, and nobody for ever."""

from __future__ import annotations

import pytest

from tests.engine.test_pacing import turn, unspoken
from tests.engine.test_scheduler import Floor, make
from voice_llm.engine import CostModel
from voice_llm.engine.line import Line

pytestmark = pytest.mark.unit


def ids(line: Line) -> list[int]:
    return [waiter.request.sequence.id for waiter in line.waiters]


def test_short_turn_goes_first_where_nobody_is_late_for_it() -> None:
    long, short = turn(0, prompt=90), turn(1, prompt=15, arrival_s=0.05)
    assert ids(Line.of(0.06, [long, short], CostModel())) == [1, 0]


def test_short_turn_waits_where_somebody_would_be_late_for_it() -> None:
    long, short = turn(0, prompt=140), turn(1, prompt=15, arrival_s=0.05)
    assert ids(Line.of(0.06, [long, short], CostModel())) == [0, 1]


def test_who_is_nearly_in_time_is_not_given_up() -> None:
    nearly, fresh = turn(0, prompt=140), turn(1, prompt=30, arrival_s=0.15)
    assert ids(Line.of(0.2, [nearly, fresh], CostModel())) == [0, 1]


def test_who_is_late_anyway_waits_for_who_can_be_in_time_and_the_shortest_of_them_goes_first() -> None:
    late = [turn(0, prompt=700), turn(1, prompt=500), turn(2, prompt=140)]
    line = Line.of(9.9, [*late, turn(3, prompt=100, arrival_s=9.8)], CostModel())
    assert ids(line) == [3, 2, 1, 0]
    assert [request.sequence.id for request in line.prompts(overdue_first=True)] == [2, 1, 0, 3], (
        "by when they were due"
    )


def test_two_late_prompts_are_served_one_after_the_other() -> None:
    floor = Floor()
    floor.now_s = 2.5
    first, second = turn(0, prompt=400), turn(1, prompt=380, arrival_s=0.3)
    floor.requests = [first, second]
    while first.remaining_tokens and second.remaining_tokens:
        floor.step()
    assert first.remaining_tokens + second.remaining_tokens >= 300  # but for what is left of the first one's last step


def test_late_prompt_is_not_passed_for_ever_by_shorter_ones_that_are_late_too() -> None:
    old, new = turn(0, prompt=700), turn(1, prompt=300, arrival_s=20.0)
    assert ids(Line.of(30.0, [old, new], CostModel())) == [0, 1]
    assert ids(Line.of(30.0, [turn(0, prompt=700, arrival_s=19.0), new], CostModel())) == [1, 0]


def test_first_words_that_are_late_but_nearly_there_go_before_a_prompt_that_has_time() -> None:
    assert ids(Line.of(9.0, [unspoken(0), turn(1, prompt=100, arrival_s=8.95)], CostModel()))[0] == 0


def test_late_prompt_is_not_passed_for_ever_by_first_words() -> None:
    floor = Floor()
    floor.now_s = 9.0
    floor.requests = [unspoken(0), turn(1, prompt=300)]
    kinds = ["prefill" if floor.step().prefill else "decode" for _ in range(20)]
    assert kinds.count("prefill") >= 3
    assert kinds.count("decode") >= 10


def test_early_prefill_takes_shorter_steps_since_whoever_comes_waits_for_them() -> None:
    floor = Floor(max_step_ms=300)
    floor.requests = [make(0, prompt=400, hint=True)]
    assert 100 <= floor.predicted_ms(floor.step()) <= 150
    floor.requests = [turn(1, prompt=400)]
    assert floor.predicted_ms(floor.step()) > 200


def test_caller_who_is_late_does_not_wait_for_one_shots() -> None:
    caller, shots = turn(0, prompt=140), [turn(i, prompt=150, arrival_s=0.2) for i in (1, 2)]
    for shot in shots:
        shot.call.one_shot = True
    for now_s in (0.5, 1.0, 3.0):
        assert ids(Line.of(now_s, [*shots, caller], CostModel()))[0] == 0


def test_long_early_prefill_is_done_although_short_ones_keep_coming() -> None:
    floor = Floor()
    opening = make(0, prompt=400, hint=True)
    floor.requests = [opening]
    for newest in range(1, 200):
        floor.requests.append(make(newest, prompt=30, hint=True, arrival_s=floor.now_s))
        floor.step()
    assert opening not in floor.requests
