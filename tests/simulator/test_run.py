"""Several callers at once: each hang-up is followed by the next call, whatever goes wrong."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from voice_llm.errors import AtCapacityError, EngineDeadError, InvalidRequestError
from voice_llm.simulator import CallerTurn, CallResult, CallScript, RunResult, run_calls

from .fakes import Heard, ScriptedTarget, now, virtually

pytestmark = pytest.mark.unit

# Speaks until 2 s, is answered at 2.5 s, has heard it at 3 s.
SCRIPT = CallScript(turns=(CallerTurn("bir iki"),), speaking_wpm=60, think_s=1.0, listen_chars_per_s=10.0)


def target(**options: Any) -> ScriptedTarget:
    return ScriptedTarget([[(0.5, "Evet.")]], **options)


def run(
    called: ScriptedTarget,
    scripts: Iterable[CallScript],
    *,
    on_progress: Callable[[CallResult], None] | None = None,
    **options: Any,
) -> RunResult:
    async def main() -> RunResult:
        return await run_calls(
            called, scripts, clock=now, sleep=asyncio.sleep, run_id="r", on_progress=on_progress, **options
        )

    return virtually(main)


def most_open(calls: list[Heard]) -> int:
    return max(sum(c.opened_s <= at < (c.closed_s or 0) for c in calls) for at in [c.opened_s for c in calls])


def test_each_hang_up_is_followed_by_the_next_call() -> None:
    called = target()
    result = run(called, [SCRIPT] * 5, concurrent=2)
    assert [heard.opened_s for heard in called.calls] == pytest.approx([0, 0, 3, 3, 6])
    assert most_open(called.calls) == 2
    assert [call.call_id for call in result.calls] == ["r-0", "r-1", "r-2", "r-3", "r-4"]
    assert (result.concurrent, result.errors) == (2, ())
    assert result.wall_s == pytest.approx(9)


def test_more_callers_than_scripts_is_fine() -> None:
    assert len(run(target(), [SCRIPT], concurrent=8).calls) == 1
    assert run(target(), [], concurrent=8).calls == ()


def test_an_endless_run_ends_when_its_time_is_up() -> None:
    called = target()
    result = run(called, itertools.repeat(SCRIPT), concurrent=2, duration_s=10.0)
    assert result.wall_s == pytest.approx(10.0)
    assert len(result.turns) == 6
    assert all(turn.asked_s < 10.0 for turn in result.turns)
    assert all(heard.closed_s is not None for heard in called.calls)
    assert result.errors == ()


def test_the_first_callers_dial_one_after_the_other_where_a_ramp_is_given() -> None:
    called = target()
    run(called, [SCRIPT] * 4, concurrent=4, ramp_s=2.0)
    assert [heard.opened_s for heard in called.calls] == pytest.approx([0, 0.5, 1.0, 1.5])


def test_persons_are_sped_up_and_targets_are_not() -> None:
    called = target()
    result = run(called, [SCRIPT], concurrent=1, speed=10.0)
    (turn,) = result.turns
    assert [turn.asked_s, turn.total_ms] == pytest.approx([0.2, 500])
    assert result.wall_s == pytest.approx(0.75)


def test_a_call_that_fails_is_on_record_and_the_next_is_dialled_after_a_pause() -> None:
    called = target(open_error=lambda call_id: AtCapacityError("busy") if call_id == "r-0" else None)
    result = run(called, [SCRIPT] * 2, concurrent=1)
    assert [call.errors for call in result.calls] == [("at_capacity: busy",), ()]
    assert result.calls[1].started_s == pytest.approx(1.0)


def test_a_dead_target_is_not_called_without_end() -> None:
    called = target(open_error=lambda _: EngineDeadError("gone"))
    result = run(called, itertools.repeat(SCRIPT), concurrent=2, duration_s=10.0)
    assert 10 <= len(result.errors) <= 22


def test_progress_is_told_after_each_call() -> None:
    told: list[str] = []
    run(target(), [SCRIPT] * 3, concurrent=1, on_progress=lambda call: told.append(call.call_id))
    assert told == ["r-0", "r-1", "r-2"]


def test_call_ids_of_two_runs_differ() -> None:
    called = target()

    async def main() -> None:
        for _ in range(2):
            await run_calls(called, [SCRIPT], concurrent=1, clock=now)

    virtually(main)
    assert len({heard.call_id for heard in called.calls}) == 2


def test_a_cancelled_run_hangs_up_all_calls_and_leaves_no_task() -> None:
    called = target(hint_s=1000.0)

    async def main() -> None:
        running = asyncio.create_task(run_calls(called, [SCRIPT] * 9, concurrent=3, clock=now))
        await asyncio.sleep(2.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtually(main)
    assert [heard.closed_s for heard in called.calls] == pytest.approx([2.2] * 3)


def test_a_bug_in_a_target_ends_the_run_and_hangs_up_the_others() -> None:
    called = target(open_error=lambda call_id: KeyError("bug") if call_id == "r-2" else None)
    with pytest.raises(ExceptionGroup) as raised:
        run(called, [SCRIPT] * 3, concurrent=2, ramp_s=2.0)
    assert raised.group_contains(KeyError)
    assert [heard.closed_s for heard in called.calls] == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize(
    ("name", "value"),
    [("concurrent", 0), ("speed", 0), ("duration_s", -1), ("ramp_s", -1), ("speed", float("inf"))],
)
def test_an_argument_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    options: dict[str, Any] = {"concurrent": 1, name: value}
    with pytest.raises(InvalidRequestError) as refused:
        run(target(), [SCRIPT], **options)
    assert refused.value.param == name
