"""An objective is read as people write it, and held against what a run had."""

from __future__ import annotations

from typing import Any

import pytest

from voice_llm.errors import ConfigError
from voice_llm.events import Usage
from voice_llm.simulator import CallResult, RunResult, TurnResult
from voice_llm.simulator.expectations import Outcome, Verdict
from voice_llm.simulator.judged import JudgedRun, JudgedTurn
from voice_llm.simulator.metrics import SHARES, TIMES
from voice_llm.simulator.objective import Checked, check_objective, parse_objective

pytestmark = pytest.mark.unit


def turn(number: int, **fields: Any) -> TurnResult:
    timed = {"first_token_ms": 50.0, "first_speech_ms": 100.0 * (number + 1), "total_ms": 5000.0, "text": "One two."}
    given: dict[str, Any] = {"call_id": "c", "turn": number, "asked_s": 10.0 * number, **timed}
    return TurnResult(**given | fields)


def failed(number: int) -> TurnResult:
    return TurnResult(call_id="c", turn=number, asked_s=10.0 * number, total_ms=1.0, error="engine_dead: gone")


def judged(*turns: TurnResult, verdicts: tuple[Verdict, ...] = (), calls: int = 1) -> JudgedRun:
    call = CallResult(call_id="c", script="s", started_s=0.0, ended_s=1000.0, turns=turns)
    silent = (CallResult(call_id=f"d{n}", script="s", started_s=0.0, ended_s=1.0) for n in range(calls - 1))
    run = RunResult(concurrent=1, wall_s=1000.0, calls=(call, *silent))
    return JudgedRun(run, tuple(JudgedTurn("s", turn, verdicts) for turn in turns[:1]))


def check(text: str, run: JudgedRun) -> Checked:
    (checked,) = check_objective(parse_objective(text), run)
    return checked


TEN = judged(*(turn(number) for number in range(10)))


def test_bounds_are_separated_by_commas_and_keep_their_words() -> None:
    bounds = parse_objective(" first_chunk_p95<=0.8s, gaps <= 1%,,total_max<3000ms ")
    assert [bound.text for bound in bounds] == ["first_chunk_p95<=0.8s", "gaps <= 1%", "total_max<3000ms"]
    assert [(b.metric, b.percent, b.operator, b.limit) for b in bounds] == [
        ("first_chunk", 95.0, "<=", 800.0),
        ("gaps", 0.0, "<=", 0.01),
        ("total", 100.0, "<", 3000.0),
    ]
    assert parse_objective("") == ()


@pytest.mark.parametrize(
    ("text", "found", "met"),
    [
        ("first_speech_p50<=550ms", "550 ms", True),
        ("first_speech_p50<550ms", "550 ms", False),
        ("first_speech_max<=1s", "1000 ms", True),
        ("first_speech_max<=0.999s", "1000 ms", False),
        ("first_speech<=956ms", "955 ms", True),
        ("first_speech_p95<=954ms", "955 ms", False),
        ("first_speech_p0>=100ms", "100 ms", True),
        ("first_speech_p0>100ms", "100 ms", False),
        ("first_speech_p99.9<=1000ms", "999 ms", True),
        ("errors<=0%", "0.0%", True),
    ],
)
def test_a_bound_is_met_up_to_its_limit(text: str, found: str, met: bool) -> None:
    checked = check(text, TEN)
    assert (checked.found, checked.met) == (found, met)


def test_what_was_not_measured_holds_no_bound() -> None:
    for text in ("stop_p95<=1s", "first_audio<=1s", "cached>=0%", "expectations>=0%"):
        checked = check(text, TEN)
        assert (checked.value, checked.found, checked.met) == (None, "nothing was measured", False)
    nothing = judged()
    assert not any(check(f"{name}<=1000000ms", nothing).met for name in TIMES)


def test_turns_that_failed_have_no_times() -> None:
    assert check("first_speech_max<=100ms", judged(turn(0), failed(1))).met
    assert check("total_max<=5s", judged(turn(0), failed(1))).value == 5000.0


def test_shares_are_of_what_they_say() -> None:
    run = judged(
        turn(0, gaps=1, gap_s=0.5, heard="One", usage=Usage(prompt_tokens=100, cached_tokens=75)),
        turn(1, usage=Usage(prompt_tokens=100, cached_tokens=100)),
        turn(2),
        failed(3),
        verdicts=(
            *(Verdict("a", Outcome.PASSED),) * 3,
            Verdict("b", Outcome.FAILED),
            Verdict("c", Outcome.FAILED, gates=False),
            Verdict("d", Outcome.NOT_JUDGED),
        ),
        calls=4,
    )
    shares = {name: share.of(run) for name, share in SHARES.items()}
    assert shares == pytest.approx(
        {"gaps": 1 / 3, "errors": 1 / 4, "expectations": 3 / 4, "cached": 175 / 200, "unheard": 1 / 6}
    )


def test_replies_that_were_broken_off_have_no_length_and_stop_in_some_time() -> None:
    run = judged(turn(0), turn(1, stopped_ms=20.0, total_ms=900.0))
    assert check("total_max<=5s", run).value == 5000.0
    assert check("total_p0>=5s", run).met
    assert check("stop_max<=20ms", run).met


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("first_chunk", "is no bound, such as first_chunk_p95<=0.8s or gaps<=1%"),
        ("first_chunk==1s", "is no bound"),
        ("first_chunk_p100<=1s", "is no bound"),
        ("first_chunk<=-1s", "is no bound"),
        ("gaps<=1%;errors<=1%", "is no bound"),
        ("first_chnk_p95<=1s", "unknown metric 'first_chnk'; did you mean 'first_chunk'?"),
        ("first_chunk_p95<=0.8", "first_chunk is a time: the objective must bound it in ms or s"),
        ("first_chunk_p95<=1%", "first_chunk is a time"),
        ("gaps<=0.01", "gaps is a share: the objective must bound it in %"),
        ("gaps_p95<=1%", "gaps is a share"),
        ("gaps<=10ms", "gaps is a share"),
    ],
)
def test_what_is_no_bound_is_refused_with_what_there_is(text: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_objective(f"errors<=1%,{text}")
    assert refused.value.param == "objective"
    assert remedy in str(refused.value)


@pytest.mark.parametrize("name", [*TIMES, *SHARES])
def test_everything_that_is_measured_can_be_bounded(name: str) -> None:
    (bound,) = parse_objective(f"{name}<=1s" if name in TIMES else f"{name}<=100%")
    assert (bound.metric, bound.limit) == (name, 1000.0 if name in TIMES else 1.0)
