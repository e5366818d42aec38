"""Admission: one more call is refused exactly where it would break what the open ones were promised."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.driver import Driver, chat
from tests.engine.held_calls import HeldCalls
from voice_llm.config.engine import EngineConfig
from voice_llm.config.sampling import SamplingParams
from voice_llm.engine import LiveCall, Request, RequestKind, Speech, TurnWork
from voice_llm.engine.admission import Forecast, first_words_wait_s
from voice_llm.engine.load import LoadSums
from voice_llm.errors import AtCapacityError
from voice_llm.text import TextPipeline

pytestmark = pytest.mark.unit


def admits(held: HeldCalls) -> bool:
    try:
        held.admission.check(held.clock())
    except AtCapacityError:
        return False
    return True


class TestWait:
    @pytest.mark.parametrize("busy", [0.2, 0.5, 0.8, 0.9])
    @pytest.mark.parametrize("spread", [1.0, 2.0])
    def test_with_very_many_callers_it_is_the_formula_of_pollaczek_and_khinchine(
        self, busy: float, spread: float
    ) -> None:
        """M/D/1 where the mean square is the square of the mean (spread 1), M/M/1 where it is twice that."""
        calls, work_s = 20_000, 0.2
        arrivals_per_s = busy / work_s
        khinchine_s = arrivals_per_s * spread * work_s**2 / (2 * (1 - busy))
        wait_s = first_words_wait_s(
            calls, think_s=calls / arrivals_per_s - khinchine_s - work_s, work_s=work_s, rest_s=spread * work_s / 2
        )
        assert wait_s == pytest.approx(khinchine_s, rel=0.02)

    def test_nobody_waits_alone(self) -> None:
        assert first_words_wait_s(1, think_s=0.0, work_s=1.0, rest_s=0.5) == 0

    def test_a_crowd_that_never_rests_waits_for_each_of_the_others(self) -> None:
        """With exponential work each finds all of the others before it: (n - 1) times the work."""
        assert first_words_wait_s(9, think_s=0.0, work_s=0.3, rest_s=0.3) == pytest.approx(8 * 0.3)

    @given(
        st.integers(1, 64),
        st.floats(0, 100),
        st.floats(0, 10),
        st.floats(0.5, 10),
    )
    def test_it_is_never_longer_than_all_the_others_work_and_grows_with_their_number(
        self, calls: int, think_s: float, work_s: float, unevenness: float
    ) -> None:
        rest_s = unevenness * work_s

        def wait_s(n: int) -> float:
            return first_words_wait_s(n, think_s=think_s, work_s=work_s, rest_s=rest_s)

        assert 0 <= wait_s(calls) <= (calls - 1) * max(work_s, rest_s) + 1e-9
        if unevenness <= 1:
            assert wait_s(calls) <= wait_s(calls + 1) + 1e-9

    def test_nothing_takes_no_time(self) -> None:
        assert first_words_wait_s(3, think_s=0.0, work_s=0.0, rest_s=0.0) == 0


class TestForecast:
    def test_utilisation_is_that_of_so_many_calls(self) -> None:
        held = HeldCalls(calls=4)
        held.talk(120.0, every_s=5.0, work_ms=200.0, reply_ms=150.0, hint_ms=50.0)
        forecast = held.admission.forecast(held.clock())
        assert forecast is not None
        assert forecast.calls == 5
        assert forecast.utilisation == pytest.approx(5 * 0.4 / 5, rel=0.02)

    def test_replies_take_their_share_before_first_words_do(self) -> None:
        """Half of the machine speaks: turns take twice as long."""
        held = HeldCalls(calls=4)
        held.talk(120.0, every_s=10.0, work_ms=100.0, reply_ms=1000.0)
        forecast = held.admission.forecast(held.clock())
        assert forecast is not None
        assert forecast.alone_s == pytest.approx(0.1 / (1 - 5 * 0.1), rel=0.03)

    def test_work_of_soft_calls_stays_as_it_is(self) -> None:
        held = HeldCalls(calls=4)
        for _ in range(120):
            held.talk(1.0, every_s=2.0, work_ms=100.0)
            held.soft_work(300.0)
        forecast = held.admission.forecast(held.clock())
        assert forecast is not None
        assert forecast.utilisation == pytest.approx(0.3 + 5 * 0.05, rel=0.03)
        assert forecast.alone_s == pytest.approx(0.1 / 0.7, rel=0.03)

    def test_replies_decoded_far_ahead_count_at_the_pace_of_the_voice(self) -> None:
        """A caller who never listens: each reply of 10 s takes 0.5 s, and the next turn comes at once."""
        held = HeldCalls(calls=1)
        held.talk(60.0, every_s=0.6, work_ms=100.0, reply_ms=500.0, spoken_chars=150)
        forecast = held.admission.forecast(held.clock())
        assert forecast is not None
        assert forecast.utilisation == pytest.approx(2 * (0.1 / 0.6 + 0.05), rel=0.03)

    def test_opening_prompts_count_as_often_as_calls_end(self) -> None:
        """Five calls came at once; none has ended, so their opening prompts say nothing of what is to come."""
        driver = Driver(sequences=6, token_ms=2.0)
        calls = [driver.open() for _ in range(5)]
        for call in calls:
            driver.hint(call, chat("x" * 1500))
        driver.run()
        crowd = Crowd(driver, calls)
        crowd.talk(rounds=3)
        forecast = driver.batcher.calls.admission.forecast(driver.clock())
        assert forecast is not None
        before = forecast.utilisation
        for call in calls[:2]:
            driver.batcher.close_call(call)
        sums = driver.batcher.calls.load.sums(driver.clock())
        forecast = driver.batcher.calls.admission.forecast(driver.clock())
        assert forecast is not None
        opening_s = sums.opening_ms / sums.openings / 1e3
        assert opening_s > 2
        assert forecast.utilisation == pytest.approx(before / 6 * 4 + 4 * opening_s * 2 / sums.call_s, rel=0.01)

    def test_too_little_says_nothing(self) -> None:
        held = HeldCalls(calls=2)
        assert held.admission.forecast(held.clock()) is None
        held.talk(10.0, every_s=0.5, work_ms=400.0)
        assert held.admission.forecast(held.clock()) is None, "ten seconds are too short a time"
        held = HeldCalls(calls=2)
        held.talk(30.0, every_s=10.0, work_ms=4000.0)
        assert held.admission.forecast(held.clock()) is None, "six turns are too few"


class TestRefusal:
    @pytest.mark.parametrize("work_ms", [150.0, 200.0, 300.0])
    def test_the_call_that_would_break_the_target_is_the_first_to_be_refused(self, work_ms: float) -> None:
        """Callers with a turn every 10 s, all alike: deterministic work, as in M/D/1 with so many sources."""
        refused_at = None
        for calls in range(1, 120):
            held = HeldCalls(calls=calls)
            held.talk(60.0, every_s=10.0, work_ms=work_ms)
            if not admits(held):
                refused_at = calls
                break
        work_s = work_ms / 1e3
        wait_s = [first_words_wait_s(n, think_s=10 - work_s, work_s=work_s, rest_s=work_s / 2) for n in range(1, 130)]
        fits = sum(work_s + wait <= 0.8 and n * work_s / 10 <= 1 for n, wait in enumerate(wait_s, 1))
        assert refused_at is not None
        assert refused_at == pytest.approx(fits, abs=1)

    def test_it_says_what_it_expects_and_when_to_come_back(self) -> None:
        held = HeldCalls(calls=60)
        held.talk(120.0, every_s=10.0, work_ms=200.0, waited_s=1.0)
        held.close(5)
        with pytest.raises(AtCapacityError) as refused:
            held.admission.check(held.clock())
        assert str(refused.value).startswith("with one more call, first words would take about ")
        assert str(refused.value).endswith(" s where 0.8 s is the target; calls open: 55")
        sums = held.load.sums(held.clock())
        assert refused.value.retry_after_s == pytest.approx(sums.call_s / sums.ended / 55)
        assert 1 < refused.value.retry_after_s < 60

    def test_where_no_call_has_ended_the_hint_is_a_minute_at_most(self) -> None:
        held = HeldCalls(calls=2)
        held.talk(300.0, every_s=2.0, work_ms=1500.0)
        with pytest.raises(AtCapacityError) as refused:
            held.admission.check(held.clock())
        assert 50 < refused.value.retry_after_s <= 60

    def test_work_beyond_the_machines_time_is_refused_where_it_would_pile_up(self) -> None:
        held = HeldCalls(calls=10)
        held.talk(120.0, every_s=10.0, work_ms=100.0, hint_ms=950.0)
        with pytest.raises(AtCapacityError, match=r"would have work for 11\d% of the time; calls open: 10"):
            held.admission.check(held.clock())

    def test_replies_that_take_the_whole_machine_are_refused(self) -> None:
        held = HeldCalls(calls=10)
        held.talk(120.0, every_s=10.0, work_ms=10.0, reply_ms=950.0, spoken_chars=75)
        with pytest.raises(AtCapacityError, match="% of the time"):
            held.admission.check(held.clock())

    def test_first_call_is_never_refused(self) -> None:
        held = HeldCalls(calls=3)
        held.talk(120.0, every_s=1.0, work_ms=900.0)
        assert not admits(held)
        held.close(3)
        held.admission.check(held.clock(), pending_s=60.0)

    def test_two_odd_turns_do_not_fill_a_machine_that_is_idle_otherwise(self) -> None:
        held = HeldCalls(calls=4)
        held.talk(60.0, every_s=10.0, work_ms=50.0)
        for call in held.calls[:2]:
            held.clock.advance(8.0)
            held.turn(call, 8000.0)
        forecast = held.admission.forecast(held.clock())
        assert forecast is not None
        assert forecast.first_words_s > max(0.8, 2 * forecast.work_s)
        assert admits(held)

    def test_there_is_room_again_when_calls_have_ended(self) -> None:
        held = HeldCalls(calls=55)
        held.talk(120.0, every_s=10.0, work_ms=200.0)
        assert not admits(held)
        held.close(15)
        assert admits(held)

    def test_as_many_as_were_held_well_are_held_again(self) -> None:
        """First words came in half of the target's time at most with 30 calls, whatever the forecast would say."""
        held = HeldCalls(calls=30)
        held.talk(120.0, every_s=10.0, work_ms=100.0)
        held.close(1)
        held.talk(60.0, every_s=10.0, work_ms=480.0)
        forecast = held.admission.forecast(held.clock())
        assert forecast is not None
        assert forecast.refusal is not None
        assert admits(held)
        held.open()
        assert not admits(held), "31 were not"

    def test_what_was_held_well_once_is_nothing_worth_when_words_are_late_now(self) -> None:
        held = HeldCalls(calls=30)
        held.talk(120.0, every_s=10.0, work_ms=100.0)
        held.close(1)
        held.talk(200.0, every_s=10.0, work_ms=350.0, waited_s=2.0)
        assert not admits(held)

    def test_slow_machine_that_misses_the_target_alone_still_takes_calls(self) -> None:
        """A turn takes 2 s without anybody else; to hold one call instead of four makes it no faster."""
        held = HeldCalls(calls=3)
        held.talk(200.0, every_s=15.0, work_ms=2000.0)
        forecast = held.admission.forecast(held.clock())
        assert forecast is not None
        assert forecast.utilisation > 0.5
        assert forecast.first_words_s > 2
        assert admits(held)

    def test_callers_who_never_pause_are_no_overload_while_all_of_them_fit_into_the_target(self) -> None:
        held = HeldCalls(calls=2)
        held.talk(60.0, every_s=0.1, work_ms=50.0)
        forecast = held.admission.forecast(held.clock())
        assert forecast is not None
        assert forecast.utilisation > 1
        assert admits(held)

    def test_where_no_reply_is_paced_only_places_count(self) -> None:
        held = HeldCalls(calls=3, target_s=None)
        held.talk(120.0, every_s=1.0, work_ms=900.0)
        assert admits(held)

    def test_plain_limit_asks_no_forecast_and_makes_it_all_the_same(self) -> None:
        held = HeldCalls(calls=3, rule="limit")
        held.talk(120.0, every_s=1.0, work_ms=900.0)
        assert admits(held)
        forecast = held.admission.forecast(held.clock())
        assert forecast is not None
        assert forecast.refusal is not None

    @settings(max_examples=150, deadline=None)
    @given(
        st.integers(1, 40),
        st.lists(st.tuples(st.floats(0, 3000), st.floats(0, 2000), st.floats(0, 1000)), min_size=1, max_size=60),
        st.floats(0.01, 20),
        st.floats(0.05, 5),
    )
    def test_nobody_is_refused_by_a_machine_that_would_be_idle_most_of_the_time(
        self, calls: int, turns: list[tuple[float, float, float]], pause_s: float, target_s: float
    ) -> None:
        held = HeldCalls(calls=calls, target_s=target_s)
        for number, (work_ms, reply_ms, hint_ms) in enumerate(turns):
            held.clock.advance(pause_s)
            held.turn(held.calls[number % calls], work_ms, reply_ms, hint_ms)
        forecast = held.admission.forecast(held.clock())
        if forecast is None or forecast.utilisation < 0.3:
            assert admits(held)
        else:
            assert not math.isnan(forecast.first_words_s)


class Crowd:
    """Paced callers on a batcher, all with the same turn again and again."""

    def __init__(self, driver: Driver, calls: list[LiveCall]) -> None:
        self.driver = driver
        self.calls = calls
        self._said: dict[str, list[str]] = {call.call_id: [] for call in calls}

    def talk(self, *, rounds: int, question: str = "Hello?", pause_s: float = 2.0) -> None:
        for _ in range(rounds):
            for call in self.calls:
                self.driver.clock.advance(pause_s)
                self._turn(call, question)
                self.driver.run()

    def _turn(self, call: LiveCall, question: str) -> None:
        said = self._said[call.call_id]
        said.append(question)
        tokens = self.driver.backend.tokenize(chat(*said), parse_special=True)
        said.append("Yes.")
        sampler = self.driver.backend.new_sampler(SamplingParams())
        work = TurnWork(sampler, TextPipeline(), 16, Speech(chars_per_s=15.0, target_s=0.8))
        self.driver.batcher.submit(Request(call, RequestKind.TURN, tokens, self.driver.clock(), work))


class TestBatcher:
    def test_known_load_of_a_backend_has_the_utilisation_that_it_has(self) -> None:
        driver = Driver(sequences=8)
        crowd = Crowd(driver, [driver.open() for _ in range(4)])
        crowd.talk(rounds=1)  # the opening prompts, which count otherwise
        before_s, before_ms = driver.clock(), driver.batcher.counters.step_ms
        crowd.talk(rounds=8)
        busy = (driver.batcher.counters.step_ms - before_ms) / 1e3 / (driver.clock() - before_s)
        forecast = driver.batcher.calls.admission.forecast(driver.clock())
        assert forecast is not None
        assert forecast.calls == 5
        assert forecast.utilisation == pytest.approx(busy / 4 * 5, rel=0.15)

    def test_call_is_refused_and_counted_when_the_machine_is_full(self) -> None:
        driver = Driver(sequences=8)
        crowd = Crowd(driver, [driver.open() for _ in range(3)])
        crowd.talk(rounds=6, question="x" * 300, pause_s=0.1)
        with pytest.raises(AtCapacityError, match="with one more call") as refused:
            driver.open()
        assert 1 <= refused.value.retry_after_s <= 60
        counters = driver.batcher.counters
        assert (counters.refused_by_forecast, counters.refused_by_limit) == (1, 0)
        assert len(driver.batcher.calls) == 3
        for call in crowd.calls:
            driver.batcher.close_call(call)
        driver.open()

    def test_call_that_would_wait_for_other_opening_prompts_is_refused_from_the_first_second_on(self) -> None:
        driver = Driver(sequences=8)
        for _ in range(5):
            driver.hint(driver.open(), chat("x" * 1000))
        with pytest.raises(AtCapacityError, match=r"wait for about 2\d s for those of others; calls open: 5") as e:
            driver.open()
        assert 1 <= e.value.retry_after_s < 10
        driver.run()
        driver.open()

    def test_one_long_opening_prompt_keeps_nobody_out(self) -> None:
        driver = Driver(sequences=4, context_per_call=20_000)
        driver.hint(driver.open(), chat("x" * 15_000))
        for _ in range(2):
            driver.hint(driver.open(), chat("Hello?"))
        assert not driver.open().closed

    def test_hints_and_one_shots_that_wait_keep_nobody_out(self) -> None:
        driver = Driver(sequences=8, token_ms=4.0)
        crowd = Crowd(driver, [driver.open() for _ in range(4)])
        crowd.talk(rounds=1)
        for call in crowd.calls:
            driver.hint(call, chat("x" * 1800))
        for number in range(6):
            shot = driver.batcher.open_call(f"shot-{number}", crowd.calls[0].key, one_shot=True)
            driver.turn(shot, chat("z" * 1800))
        assert not driver.open().closed

    def test_prompts_that_are_in_the_cache_keep_nobody_out(self) -> None:
        driver = Driver(sequences=8, token_ms=4.0)
        calls = [driver.open() for _ in range(6)]
        for call in calls:
            driver.say(call, chat("x" * 1500))
        for call in calls:
            driver.turn(call, chat("x" * 1500))
        assert not driver.open().closed

    def test_calls_are_refused_where_replies_leave_turns_too_little_of_the_machine(self) -> None:
        calls = 19
        sums = LoadSums(
            observed_s=60,
            call_s=calls * 60,
            turns=calls,
            turn_ms=calls * 200,
            turn_ms2=calls * 200**2,
            first_words=calls,
            first_words_s=calls * 2.0,
            reply_ms=calls * 60 * 43,
        )
        assert "first words" in (Forecast.of(sums, 20, 0.8).refusal or "")
        assert Forecast.of(sums, 2, 0.8).refusal is None

    def test_plain_limit_takes_as_many_as_there_are_places(self) -> None:
        driver = Driver(sequences=4, config=EngineConfig(admission="limit"))
        Crowd(driver, [driver.open() for _ in range(3)]).talk(rounds=6, question="x" * 300, pause_s=0.1)
        driver.open()
        with pytest.raises(AtCapacityError, match="all 4 calls"):
            driver.open()
        assert driver.batcher.counters.refused_by_limit == 1

    def test_soft_calls_are_admitted_by_the_limit_alone(self) -> None:
        driver = Driver(sequences=8)
        crowd = Crowd(driver, [driver.open() for _ in range(3)])
        crowd.talk(rounds=6, question="x" * 300, pause_s=0.1)
        soft = driver.batcher.open_call("soft", crowd.calls[0].key, soft=True)
        driver.say(soft, chat("Hello?"))
        assert driver.batcher.counters.refused_by_forecast == 0
        with pytest.raises(AtCapacityError, match="with one more call"):
            driver.open()
