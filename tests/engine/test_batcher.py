"""DynamicBatcher: the rules that callers notice, on virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from voice_llm.backend import Sampler, SavedState
from voice_llm.config.engine import EngineConfig
from voice_llm.engine import LiveCall, Request
from voice_llm.errors import (
    AtCapacityError,
    BackendError,
    CallBusyError,
    ContextFullError,
    ContextTooLongError,
    EngineError,
    InvalidRequestError,
    WrongStateError,
)
from voice_llm.events import Finished, FinishReason, Prefilled
from voice_llm.testing import FakeBackend, FakeState

from .driver import Driver, chat

pytestmark = pytest.mark.unit

LONG_REPLY = "bu uzun bir cevap " * 20


def usage(driver: Driver, request: Request) -> tuple[int, int, int]:
    end = driver.end(request)
    assert isinstance(end, (Finished, Prefilled))
    return end.usage.prompt_tokens, end.usage.cached_tokens, end.usage.completion_tokens


def rows_of_last_step(driver: Driver) -> list[int]:
    return [sequence_id for sequence_id, _ in driver.backend.batches[-1]]


class TestReplies:
    def test_reply_is_what_the_model_says_to_the_calls_own_prompt(self) -> None:
        driver = Driver()
        said = {f"Merhaba, ben arayan {i}. Görüşürüz!": driver.open() for i in range(4)}
        turns = {text: driver.turn(call, chat(text)) for text, call in said.items()}
        driver.run()
        for text, request in turns.items():
            assert driver.text(request) == f"You said {text}. That makes 1."
            assert driver.finished(request).reason is FinishReason.STOP

    def test_chunks_joined_are_the_text(self) -> None:
        driver = Driver(reply=lambda _: "Bir şey söyledim. İkincisi geldi! Üçüncüsü de burada.")
        request = driver.say(driver.open(), chat("x"))
        chunks = driver.chunks(request)
        assert "".join(c.text for c in chunks) == driver.text(request)
        assert [c.index for c in chunks] == list(range(len(chunks)))
        assert len(chunks) > 1

    def test_max_tokens_ends_a_reply_with_length_and_gives_out_what_was_held_back(self) -> None:
        driver = Driver(reply=lambda _: "one two three four")
        request = driver.say(driver.open(), chat("x"), max_tokens=7)
        assert driver.text(request) == "one two"
        assert driver.finished(request).reason is FinishReason.LENGTH
        assert usage(driver, request)[2] == 7

    def test_stop_string_ends_a_reply_with_stop_and_is_no_part_of_it(self) -> None:
        driver = Driver(reply=lambda _: "Tamam. User: and more")
        request = driver.say(driver.open(), chat("x"), stop=("User:",))
        assert driver.text(request).strip() == "Tamam."
        assert driver.finished(request).reason is FinishReason.STOP
        assert usage(driver, request)[2] == len("Tamam. User:")

    def test_first_token_that_ends_the_turn_makes_an_empty_reply(self) -> None:
        driver = Driver(reply=lambda _: "")
        request = driver.say(driver.open(), chat("x"))
        assert (driver.text(request), usage(driver, request)[2]) == ("", 1)
        assert driver.finished(request).reason is FinishReason.STOP

    def test_times_count_from_arrival_with_the_queue_in_them(self) -> None:
        driver = Driver(sequences=1, max_calls=2, reply=lambda _: "Tamam. Peki.")
        first = driver.turn(driver.open(), chat("x" * 20))
        second = driver.turn(driver.open(), chat("y"))
        driver.run()
        times = driver.finished(second).timings
        first_total_ms = driver.finished(first).timings.total_ms
        assert times.queue_ms is not None
        assert first_total_ms is not None
        assert times.queue_ms >= first_total_ms
        assert times.first_token_ms is not None
        assert times.prefill_ms == pytest.approx(times.first_token_ms - times.queue_ms)
        assert times.first_chunk_ms is not None
        assert times.total_ms is not None
        assert times.first_token_ms < times.first_chunk_ms <= times.total_ms
        assert times.total_ms == pytest.approx(driver.clock() * 1e3)

    def test_turn_without_a_prompt_is_refused(self) -> None:
        driver = Driver()
        call = driver.open()
        with pytest.raises(InvalidRequestError, match="prompt is empty"):
            driver.turn(call, "")
        assert call.request is None


class TestBatching:
    def test_call_that_arrives_while_others_talk_joins_the_next_steps(self) -> None:
        driver = Driver(reply=lambda p: "Kısa." if "kısa" in p else LONG_REPLY)
        talkers = [driver.turn(driver.open(), chat("uzun"), max_tokens=400) for _ in range(2)]
        for talker in talkers:
            driver.run_until(talker, "talking")
        late = driver.turn(driver.open(), chat("kısa"))
        before = len(driver.backend.batches)
        driver.run_until(late, "talking")
        # Its prompt needs a few bounded steps of its own, each between two steps of the talkers.
        assert len(driver.backend.batches) - before <= 2 * (len(late.prompt) // 16 + 1) + 1
        driver.step()
        assert len(rows_of_last_step(driver)) == 3
        driver.run_until(late, "done")
        assert [t.state.value for t in talkers] == ["talking", "talking"]

    def test_every_talking_call_advances_in_every_decode_step(self) -> None:
        driver = Driver(reply=lambda _: LONG_REPLY)
        turns = [driver.turn(driver.open(), chat("x"), max_tokens=400) for _ in range(4)]
        for turn in turns:
            driver.run_until(turn, "talking")
        before = [len(t.work.generated) for t in turns]
        for _ in range(10):
            driver.step()
        assert [len(t.work.generated) for t in turns] == [n + 10 for n in before]

    def test_talkers_are_brought_to_adjacent_sequences_and_share_one_micro_batch(self) -> None:
        driver = Driver(sequences=8, reply=lambda p: LONG_REPLY if "şimdi" in p else "Evet.")
        calls = [driver.open() for _ in range(8)]
        for call in calls:
            driver.say(call, chat("merhaba"))
        turns = [driver.turn(calls[i], chat("merhaba", "Evet.", f"şimdi {i}"), max_tokens=400) for i in (0, 3, 6)]
        for turn in turns:
            driver.run_until(turn, "talking")
        counters = driver.batcher.counters
        before = (counters.decode_steps, counters.decode_micro_batches)
        for _ in range(10):
            driver.step()
            rows = rows_of_last_step(driver)
            assert rows == sorted(rows)
            assert rows[-1] - rows[0] == 2
        assert (counters.decode_steps - before[0], counters.decode_micro_batches - before[1]) == (10, 10)
        assert counters.rehomed == 2
        driver.run()
        assert {driver.text(t).strip() for t in turns} == {LONG_REPLY.strip()}
        for call in calls:
            # Whoever was moved aside kept its cache too.
            turn = driver.say(call, chat("merhaba", "Evet.", "son"))
            assert usage(driver, turn)[1] > len(driver.backend.tokenize(chat("merhaba"), parse_special=True))

    @pytest.mark.parametrize("reply", ["One sentence is here. Another one is there.", "Yes."])
    def test_opening_prompt_is_kept_for_others_once_its_own_caller_hears_something(
        self, reply: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver = Driver(reply=lambda _: reply)
        turn = driver.turn(driver.open(), chat("x" * 100))
        heard: list[bool] = []
        save = driver.backend.seq_save

        def note_and_save(sequence_id: int) -> FakeState:
            heard.append(turn.first_chunk_s is not None)
            return save(sequence_id)

        monkeypatch.setattr(driver.backend, "seq_save", note_and_save)
        driver.run()
        assert heard == [True]
        again = driver.say(driver.open(), chat("x" * 100))
        assert usage(driver, again)[1] >= len(turn.prompt) - 3

    def test_prompt_that_is_too_long_to_copy_now_keeps_no_other_from_being_kept(self) -> None:
        driver = Driver(reply=lambda _: "One sentence is here. " * 20)
        driver.batcher.cost.copy_ms_per_token = 0.1  # 250 tokens in the time that listeners can wait
        driver.run_until(driver.turn(driver.open(), chat("c")), "talking")  # somebody listens all the time
        long = driver.turn(driver.open(), chat("a long one" * 40))
        while long.first_chunk_s is None:
            driver.step()
        short = driver.turn(driver.open(), chat("b" * 40))
        while short.first_chunk_s is None:
            driver.step()
        driver.step()
        assert (long.call.seeded, short.call.seeded) == (False, True)

    def test_long_prompt_never_delays_a_talking_call_by_more_than_two_steps(self) -> None:
        config = EngineConfig(max_step_ms=100)
        driver = Driver(context_per_call=8192, config=config, reply=lambda _: LONG_REPLY * 40)
        talker = driver.turn(driver.open(), chat("x"), max_tokens=4000)
        driver.run_until(talker, "talking")
        long = driver.turn(driver.open(), chat("y" * 4000), max_tokens=8)
        spoke_s, gaps_ms = driver.clock(), []
        while long.state.value != "talking":
            before = len(talker.work.generated)
            driver.step()
            if len(talker.work.generated) > before:
                gaps_ms.append((driver.clock() - spoke_s) * 1e3)
                spoke_s = driver.clock()
        assert len(gaps_ms) > 100
        assert max(gaps_ms) <= 2 * config.max_step_ms
        assert driver.batcher.counters.longest_step_ms <= config.max_step_ms

    def test_steps_are_bounded_on_a_machine_much_slower_than_the_first_guess(self) -> None:
        driver = Driver(micro_batch_ms=20, token_ms=20, config=EngineConfig(max_step_ms=400))
        warm_up = driver.open()
        driver.say(warm_up, chat("x"))
        driver.batcher.counters.longest_step_ms = 0.0
        for _ in range(3):
            driver.turn(driver.open(), chat("z" * 300))
        driver.run()
        assert driver.batcher.counters.longest_step_ms <= 3 * 400 * 1.2  # nobody has to go on meanwhile

    def test_more_calls_than_one_step_holds_all_finish(self) -> None:
        driver = Driver(sequences=12, config=EngineConfig(max_step_ms=25), max_batch_tokens=4)
        turns = [driver.turn(driver.open(), chat(f"{i}")) for i in range(12)]
        driver.run(most_steps=5000)
        for i, turn in enumerate(turns):
            assert driver.text(turn) == f"You said {i}. That makes 1."


class TestCancel:
    def test_in_the_queue_it_ends_before_any_work(self) -> None:
        driver = Driver(sequences=1, max_calls=2, reply=lambda _: LONG_REPLY)
        talker = driver.turn(driver.open(), chat("x"), max_tokens=400)
        driver.run_until(talker, "talking")
        queued = driver.turn(driver.open(), chat("never decoded"))
        driver.step()
        assert queued.state.value == "queued"
        driver.batcher.cancel(queued)
        driver.step()
        assert driver.finished(queued).reason is FinishReason.CANCELLED
        assert driver.finished(queued).timings.queue_ms is None
        assert driver.backend.open_samplers == 1

    def test_between_prefill_chunks_it_stops_the_prefill(self) -> None:
        driver = Driver()
        call = driver.open()
        request = driver.turn(call, chat("x" * 500))
        driver.step()
        driver.step()
        computed = request.computed_tokens
        assert 0 < computed < len(request.prompt)
        driver.batcher.cancel(request)
        driver.step()
        assert driver.finished(request).reason is FinishReason.CANCELLED
        assert not driver.batcher.has_work
        assert driver.backend.counters.decoded_tokens == computed
        again = driver.say(call, chat("x" * 500))
        assert usage(driver, again)[1] == computed

    def test_between_tokens_it_ends_the_reply_at_the_next_step(self) -> None:
        driver = Driver(reply=lambda _: LONG_REPLY)
        request = driver.turn(driver.open(), chat("x"), max_tokens=400)
        driver.run_until(request, "talking")
        driver.batcher.cancel(request, FinishReason.INTERRUPTED)
        batches = driver.backend.counters.batches
        driver.step()
        assert driver.finished(request).reason is FinishReason.INTERRUPTED
        assert driver.backend.counters.batches == batches
        assert driver.backend.open_samplers == 0

    def test_of_a_finished_request_changes_nothing(self) -> None:
        driver = Driver()
        request = driver.say(driver.open(), chat("x"))
        driver.batcher.cancel(request)
        driver.run()
        assert driver.finished(request).reason is FinishReason.STOP

    def test_frees_the_call_for_a_new_turn_at_once(self) -> None:
        driver = Driver()
        call = driver.open()
        first = driver.turn(call, chat("bir"))
        driver.step()
        driver.batcher.cancel(first)
        second = driver.say(call, chat("iki"))
        assert driver.text(second) == "You said iki. That makes 1."

    def test_what_was_said_before_it_is_used_by_the_next_turn(self) -> None:
        driver = Driver(reply=lambda p: LONG_REPLY if "anlat" in p[-40:] else "Peki.")
        call = driver.open()
        cut = driver.turn(call, chat("anlat"), max_tokens=400)
        driver.run_until(cut, "talking")
        for _ in range(30):
            driver.step()
        driver.batcher.cancel(cut, FinishReason.INTERRUPTED)
        heard = LONG_REPLY[:20]
        after = driver.say(call, chat("anlat", heard, "dur"))
        assert usage(driver, after)[1] == len(cut.prompt) + len(heard.encode())
        assert driver.text(after) == "Peki."


class TestReuse:
    def test_whole_prompt_in_the_cache_still_decodes_its_end(self) -> None:
        driver = Driver()
        call = driver.open()
        first = driver.say(call, chat("aynı"))
        decoded = driver.backend.counters.decoded_tokens
        again = driver.say(call, chat("aynı"))
        prompt, cached, completion = usage(driver, again)
        assert cached == prompt - 2
        assert driver.backend.counters.decoded_tokens - decoded == completion + 1
        assert driver.text(again) == driver.text(first)

    def test_generated_tokens_are_not_computed_again(self) -> None:
        driver = Driver()
        call = driver.open()
        first = driver.say(call, chat("bir"))
        second = driver.say(call, chat("bir", driver.text(first), "iki"))
        # All of the first turn but its end-of-turn token, which was sampled and never decoded.
        assert usage(driver, second)[1] == len(first.prompt) + len(driver.text(first).encode())
        assert driver.text(second) == "You said iki. That makes 2."

    def test_usage_is_what_the_backend_really_decoded_for_every_turn_of_a_call(self) -> None:
        driver = Driver()
        call = driver.open()
        said: list[str] = []
        for question in ("Merhaba", "Fiyatı ne kadar?", "Peki", "Görüşürüz"):
            said.append(question)
            before = driver.backend.counters.decoded_tokens
            turn = driver.say(call, chat(*said, system="Kısa konuş."))
            prompt, cached, completion = usage(driver, turn)
            assert driver.backend.counters.decoded_tokens - before == prompt - cached + completion - 1
            assert cached > 0 or len(said) == 1
            said.append(driver.text(turn))

    def test_history_that_was_edited_is_computed_from_where_it_differs(self) -> None:
        driver = Driver()
        call = driver.open()
        driver.say(call, chat("bir", "cevap", "iki"))
        edited = driver.say(call, chat("bir", "ceza", "iki"))
        assert usage(driver, edited)[1] == len(driver.backend.tokenize(chat("bir"), parse_special=True)) + len("ce")
        assert driver.text(edited) == "You said iki. That makes 2."

    def test_equal_opening_of_the_same_tenant_is_restored_and_counted_as_cached(self) -> None:
        driver = Driver()
        system = "Sen bir sigorta asistanısın. " * 5
        first = driver.open()
        driver.say(first, chat("bir", system=system))
        driver.batcher.close_call(first)
        second = driver.say(driver.open(), chat("iki", system=system))
        assert usage(driver, second)[1] >= len(system.encode())
        assert driver.text(second) == "You said iki. That makes 1."
        assert driver.batcher.counters.restored_tokens == usage(driver, second)[1]

    def test_nothing_of_one_tenant_is_restored_for_another(self) -> None:
        driver = Driver()
        driver.say(driver.open("acme"), chat("gizli", system="s" * 200))
        other = driver.say(driver.open("rival"), chat("gizli", system="s" * 200))
        assert usage(driver, other)[1] == 0
        assert driver.batcher.counters.restored_tokens == 0

    def test_sequence_of_a_closed_call_reaches_the_next_tenant_empty(self) -> None:
        driver = Driver(sequences=1)
        first = driver.open("acme")
        driver.say(first, chat("gizli", system="s" * 200))
        driver.batcher.close_call(first)
        other = driver.say(driver.open("rival"), chat("gizli", system="s" * 200))
        assert usage(driver, other)[1] == 0

    def test_profiles_own_system_prompt_is_shared_by_all_tenants_and_no_more_than_it(self) -> None:
        driver = Driver()
        system = "Profilin kendi metni. " * 4
        owner = driver.open("")
        opening = f"<|im_start|>system\n{system}"
        driver.hint(owner, opening)
        driver.run()
        driver.batcher.calls.save_prefix(owner, owner.key.of_profile)
        driver.batcher.close_call(owner)
        shared = len(driver.backend.tokenize(opening, parse_special=True))
        for tenant in ("acme", "rival"):
            turn = driver.say(driver.open(tenant), chat("aynı soru", system=system))
            assert usage(driver, turn)[1] == shared

    @pytest.mark.parametrize("window", [16, 64])
    def test_rewind_behind_a_sliding_window_is_computed_again_and_says_the_right_thing(self, window: int) -> None:
        driver = Driver(sliding_window=window, reply=lambda p: f"{p.count('user')} kişi. {LONG_REPLY[:60]}")
        call = driver.open()
        cut = driver.turn(call, chat("anlat"), max_tokens=400)
        driver.run_until(cut, "talking")
        for _ in range(40):
            driver.step()
        driver.batcher.cancel(cut)
        before = driver.backend.counters.decoded_tokens
        after = driver.say(call, chat("anlat", "1", "dur"))
        prompt, cached, completion = usage(driver, after)
        assert driver.text(after).startswith("2 kişi.")
        assert driver.backend.counters.decoded_tokens - before == prompt - cached + completion - 1

    def test_sliding_window_keeps_a_history_that_only_grows(self) -> None:
        driver = Driver(sliding_window=16)
        call = driver.open()
        first = driver.say(call, chat("bir"))
        second = driver.say(call, chat("bir", driver.text(first), "iki"))
        assert usage(driver, second)[1] == len(first.prompt) + len(driver.text(first).encode())


class TestLimits:
    def test_prompt_that_leaves_no_room_for_its_reply_is_refused_and_nothing_is_lost(self) -> None:
        driver = Driver(context_per_call=256)
        call = driver.open()
        first = driver.say(call, chat("kısa"))
        with pytest.raises(ContextTooLongError, match="256") as refused:
            driver.turn(call, chat("x" * 120), max_tokens=128)
        assert (refused.value.max_tokens, refused.value.context_tokens) == (128, 256)
        second = driver.say(call, chat("kısa", driver.text(first), "iki"), max_tokens=64)
        assert usage(driver, second)[1] > len(first.prompt)

    def test_prompt_and_reply_that_just_fit_are_taken_to_the_last_token(self) -> None:
        driver = Driver(context_per_call=256, reply=lambda _: LONG_REPLY)
        prompt = chat("x")
        room = 256 - len(driver.backend.tokenize(prompt, parse_special=True))
        with pytest.raises(ContextTooLongError):
            driver.turn(driver.open(), prompt, max_tokens=room + 1)
        request = driver.say(driver.open(), prompt, max_tokens=room)
        assert driver.finished(request).reason is FinishReason.LENGTH
        assert usage(driver, request)[2] == room

    def test_refused_prompt_leaves_a_running_hint_alone(self) -> None:
        driver = Driver(context_per_call=256)
        call = driver.open()
        hint = driver.hint(call, "merhaba" * 5)
        with pytest.raises(ContextTooLongError):
            driver.turn(call, chat("x" * 300))
        driver.run()
        assert isinstance(driver.end(hint), Prefilled)

    def test_second_turn_of_a_call_is_refused_while_the_first_runs(self) -> None:
        driver = Driver()
        call = driver.open()
        first = driver.turn(call, chat("bir"))
        for refused in (driver.turn, driver.hint):
            with pytest.raises(CallBusyError, match="already has a running turn"):
                refused(call, chat("iki"))
        driver.run()
        assert driver.text(first) == "You said bir. That makes 1."

    def test_closed_call_takes_no_more_work(self) -> None:
        driver = Driver()
        call = driver.open()
        driver.batcher.close_call(call)
        driver.batcher.close_call(call)
        with pytest.raises(WrongStateError, match="closed"):
            driver.turn(call, chat("x"))
        driver.assert_nothing_is_left()

    @pytest.mark.parametrize("steps", [0, 1, 3, 12])
    def test_close_in_the_middle_of_anything_frees_all(self, steps: int) -> None:
        driver = Driver(reply=lambda _: LONG_REPLY)
        call = driver.open()
        request = driver.turn(call, chat("x" * 40), max_tokens=400)
        for _ in range(steps):
            driver.step()
        driver.batcher.close_call(call)
        driver.run()
        assert driver.finished(request).reason is FinishReason.CANCELLED
        driver.assert_nothing_is_left()

    def test_as_many_calls_as_sequences_by_default_and_one_more_is_refused(self) -> None:
        driver = Driver(sequences=2)
        calls = [driver.open(), driver.open()]
        with pytest.raises(AtCapacityError):
            driver.open()
        driver.batcher.close_call(calls[0])
        driver.open()


class TestParking:
    def test_call_that_was_parked_goes_on_from_its_cache(self) -> None:
        driver = Driver(sequences=1, max_calls=3)
        calls = [driver.open() for _ in range(3)]
        firsts = [driver.say(call, chat(f"ben {i}")) for i, call in enumerate(calls)]
        assert driver.batcher.counters.parked == 2
        for i, (call, first) in enumerate(zip(calls, firsts, strict=True)):
            second = driver.say(call, chat(f"ben {i}", driver.text(first), "devam"))
            assert usage(driver, second)[1] == len(first.prompt) + len(driver.text(first).encode())
            assert driver.text(second) == "You said devam. That makes 2."

    def test_turns_without_a_sequence_wait_for_one_and_all_are_answered(self) -> None:
        driver = Driver(sequences=2, max_calls=8)
        turns = [driver.turn(driver.open(), chat(f"ben {i}")) for i in range(8)]
        driver.run()
        for i, turn in enumerate(turns):
            assert driver.text(turn) == f"You said ben {i}. That makes 1."

    def test_turn_takes_a_free_sequence_before_an_early_prefill_that_came_first(self) -> None:
        driver = Driver(sequences=1, max_calls=3, reply=lambda _: LONG_REPLY)
        talker = driver.turn(driver.open(), chat("x"), max_tokens=20)
        driver.run_until(talker, "talking")
        hint = driver.hint(driver.open(), "h" * 50)
        turn = driver.turn(driver.open(), chat("y"), max_tokens=5)
        driver.run_until(turn, "done")
        assert hint.state.value == "queued"
        driver.run()
        assert isinstance(driver.end(hint), Prefilled)


class TestHints:
    def test_hint_is_cached_for_the_turn_that_follows(self) -> None:
        driver = Driver()
        call = driver.open()
        opening = chat("Yarın saat kaçta açık")[: -len("<|im_end|>\n<|im_start|>assistant\n")]
        hint = driver.hint(call, opening)
        driver.run()
        end = driver.end(hint)
        assert isinstance(end, Prefilled)
        assert end.complete
        assert (end.usage.prompt_tokens, end.usage.cached_tokens) == (len(hint.prompt), 0)
        assert end.prefill_ms > 0
        turn = driver.say(call, chat("Yarın saat kaçta açıksınız?"))
        assert usage(driver, turn)[1] == len(hint.prompt)

    def test_hint_gives_way_to_a_turn_of_its_call_and_what_it_did_is_used(self) -> None:
        driver = Driver()
        call = driver.open()
        hint = driver.hint(call, chat("x" * 400))
        driver.step()
        computed = hint.computed_tokens
        turn = driver.turn(call, chat("x" * 400, "", "y"))
        driver.run()
        assert driver.finished(hint).reason is FinishReason.CANCELLED
        assert usage(driver, turn)[1] == computed > 0
        assert driver.text(turn) == "You said y. That makes 2."

    def test_newer_hint_replaces_the_older(self) -> None:
        driver = Driver()
        call = driver.open()
        older = driver.hint(call, "a" * 400)
        driver.step()
        newer = driver.hint(call, "a" * 100 + "b" * 100)
        driver.run()
        assert driver.finished(older).reason is FinishReason.CANCELLED
        assert isinstance(driver.end(newer), Prefilled)
        assert call.sequence is not None
        assert call.sequence.tokens == newer.prompt

    def test_hint_delays_another_calls_turn_by_one_bounded_step_at_most(self) -> None:
        config = EngineConfig(max_step_ms=100)
        alone = Driver(config=config)
        undisturbed = alone.say(alone.open(), chat("soru"))
        driver = Driver(config=config)
        hint = driver.hint(driver.open(), "h" * 1500)
        driver.step()
        turn = driver.turn(driver.open(), chat("soru"))
        driver.run_until(turn, "talking")
        assert hint.state.value == "prefilling"
        driver.run()
        first = driver.finished(turn).timings.first_token_ms
        best = alone.finished(undisturbed).timings.first_token_ms
        assert first is not None
        assert best is not None
        assert first <= best + config.max_step_ms

    def test_hint_that_is_cached_already_ends_at_once_and_costs_nothing(self) -> None:
        driver = Driver()
        call = driver.open()
        driver.say(call, chat("x"))
        decoded = driver.backend.counters.decoded_tokens
        hint = driver.hint(call, chat("x"))
        driver.step()
        assert usage(driver, hint) == (len(hint.prompt), len(hint.prompt), 0)
        assert driver.backend.counters.decoded_tokens == decoded


class Flaky(FakeBackend):
    """A backend with one operation that fails where told."""

    broken = ""

    def seq_save(self, sequence_id: int) -> FakeState:
        self._break("save")
        return super().seq_save(sequence_id)

    def seq_restore(self, sequence_id: int, state: SavedState) -> None:
        if self.broken == "restore":
            self.seq_drop(sequence_id)
        self._break("restore")
        super().seq_restore(sequence_id, state)

    def seq_drop(self, sequence_id: int) -> None:
        self._break("drop", SystemError)
        super().seq_drop(sequence_id)

    def seq_trim(self, sequence_id: int, length: int) -> bool:
        self._break("trim", SystemError)
        return super().seq_trim(sequence_id, length)

    def sample(self, entry_index: int, sampler: Sampler) -> int:
        self._break("sample")
        return super().sample(entry_index, sampler)

    def _break(self, name: str, error: type[Exception] = BackendError) -> None:
        if self.broken == name:
            raise error(name)


def flaky(**options: Any) -> tuple[Driver, Flaky]:
    driver = Driver(backend_type=Flaky, **options)
    assert isinstance(driver.backend, Flaky)
    return driver, driver.backend


class TestFailures:
    def goes_on(self, driver: Driver, call: LiveCall) -> None:
        again = driver.say(call, chat("tekrar"))
        assert driver.text(again) == "You said tekrar. That makes 1."

    def test_failed_step_fails_only_its_requests_and_their_calls_go_on(self) -> None:
        driver = Driver()
        talking, waiting = driver.open(), driver.open()
        talker = driver.turn(talking, chat("bir"))
        driver.run_until(talker, "talking")
        prompt = driver.turn(waiting, chat("iki" * 30))
        driver.backend.fail_next(BackendError("compute failed"))
        driver.run()
        assert str(driver.error(talker)) == "compute failed"
        assert driver.text(prompt) == f"You said {'iki' * 30}. That makes 1."
        assert driver.batcher.counters.failed_steps == 1
        assert driver.backend.open_samplers == 0
        self.goes_on(driver, talking)

    def test_failed_prefill_leaves_the_talkers_alone(self) -> None:
        driver = Driver()
        talker = driver.turn(driver.open(), chat("bir"))
        driver.run_until(talker, "talking")
        call = driver.open()
        prompt = driver.turn(call, chat("iki"))
        driver.step()
        driver.backend.fail_next(BackendError("compute failed"))
        driver.step()
        assert isinstance(driver.error(prompt), BackendError)
        driver.run()
        assert driver.text(talker) == "You said bir. That makes 1."
        self.goes_on(driver, call)

    def test_failed_step_takes_what_its_sequences_held(self) -> None:
        driver = Driver()
        call = driver.open()
        first = driver.say(call, chat("bir"))
        driver.turn(call, chat("bir", driver.text(first), "iki"))
        driver.backend.fail_next(BackendError("compute failed"))
        driver.run()
        again = driver.say(call, chat("bir", driver.text(first), "iki"))
        assert usage(driver, again)[1] <= len(first.prompt) + len(first.work.generated)
        assert driver.text(again) == "You said iki. That makes 2."

    def test_full_cache_is_retried_call_by_call_and_fails_only_the_one_that_does_not_fit(self) -> None:
        driver = Driver()
        turns = [driver.turn(driver.open(), chat(f"{i}")) for i in range(3)]
        for turn in turns:
            driver.run_until(turn, "talking")
        for error in (ContextFullError("step"), ContextFullError("first")):
            driver.backend.fail_next(error)
        driver.run()
        assert isinstance(driver.error(turns[0]), ContextFullError)
        assert [driver.text(t) for t in turns[1:]] == [f"You said {i}. That makes 1." for i in (1, 2)]

    def test_full_cache_that_was_only_a_matter_of_the_batch_costs_nobody_a_turn(self) -> None:
        driver = Driver()
        turns = [driver.turn(driver.open(), chat(f"{i}")) for i in range(3)]
        for turn in turns:
            driver.run_until(turn, "talking")
        driver.backend.fail_next(ContextFullError("step"))
        driver.run()
        assert [driver.text(t) for t in turns] == [f"You said {i}. That makes 1." for i in range(3)]

    def test_failed_sampling_fails_its_turn_only(self) -> None:
        driver, backend = flaky()
        call = driver.open()
        turn = driver.turn(call, chat("bir"))
        driver.run_until(turn, "talking")
        backend.broken = "sample"
        driver.step()
        backend.broken = ""
        assert isinstance(driver.error(turn), BackendError)
        assert backend.open_samplers == 0
        self.goes_on(driver, call)

    @pytest.mark.parametrize("broken", ["save", "restore"])
    def test_failed_move_beside_a_talker_fails_that_turn_only(self, broken: str) -> None:
        driver, backend = flaky(sequences=6)
        calls = [driver.open() for _ in range(6)]
        for i, call in enumerate(calls):
            driver.say(call, chat(f"{i}"))
        talker = driver.turn(calls[0], chat("0", "bir", "konuş"))
        driver.run_until(talker, "talking")
        backend.broken = broken
        moved = driver.turn(calls[4], chat("4", "bir", "konuş"))
        behind = driver.turn(calls[1], chat("1", "bir", "konuş"))
        driver.step()
        backend.broken = ""
        driver.run()
        assert isinstance(driver.error(moved), BackendError)
        for turn in (talker, behind):
            assert driver.text(turn) == "You said konuş. That makes 2."
        self.goes_on(driver, calls[4])

    def test_failed_parking_fails_the_turn_that_needed_the_room_only(self) -> None:
        driver, backend = flaky(sequences=1, max_calls=2)
        first, second = driver.open(), driver.open()
        driver.say(first, chat("bir"))
        backend.broken = "save"
        turn = driver.turn(second, chat("iki"))
        driver.run()
        backend.broken = ""
        assert isinstance(driver.error(turn), BackendError)
        self.goes_on(driver, first)
        self.goes_on(driver, second)

    def test_abandon_fails_everything_and_keeps_the_calls(self) -> None:
        driver = Driver(sequences=2, max_calls=3)
        calls = [driver.open() for _ in range(3)]
        turns = [driver.turn(call, chat("x")) for call in calls]
        for _ in range(4):
            driver.step()
        for request, event in driver.batcher.abandon(EngineError("unforeseen")):
            driver.events[request].append(event)
        driver.batcher.check_integrity()
        assert [str(driver.error(t)) for t in turns] == ["unforeseen"] * 3
        assert driver.backend.open_samplers == 0
        for call in calls:
            self.goes_on(driver, call)

    def test_abandon_tells_every_waiter_even_where_the_backend_cannot_empty_a_sequence(self) -> None:
        driver, backend = flaky()
        turn = driver.turn(driver.open(), chat("x"))
        driver.step()
        backend.broken = "drop"
        events = driver.batcher.abandon(EngineError("unforeseen"))
        assert [request for request, _ in events] == [turn]

    def test_unforeseen_error_while_requests_start_loses_none_of_them(self) -> None:
        driver, backend = flaky()
        calls = [driver.open() for _ in range(3)]
        for call in calls:
            driver.say(call, chat("bir"))
        turns = [driver.turn(call, chat("iki")) for call in calls]
        backend.broken = "trim"
        with pytest.raises(SystemError):
            driver.batcher.step()
        events = driver.batcher.abandon(EngineError("unforeseen"))
        assert {request for request, _ in events} == set(turns)
        backend.broken = ""
        for call in calls:
            self.goes_on(driver, call)


def test_repr_counts_calls_and_requests() -> None:
    driver = Driver()
    driver.turn(driver.open(), chat("x"))
    driver.open()
    assert repr(driver.batcher) == "<DynamicBatcher [2 calls | 1 queued, 0 running]>"


def test_turn_without_a_sequence_takes_that_of_an_early_prefill() -> None:
    """An early prefill gives way to a turn of any call, though both calls are live."""
    driver = Driver(sequences=1, max_calls=2, config=EngineConfig(max_step_ms=30))
    listening, asking = driver.open(), driver.open()
    hint = driver.hint(listening, chat("çok uzun bir söz " * 20))
    driver.step()
    turn = driver.turn(asking, chat("Alo?"))
    driver.step()
    assert hint.state.value == "done"
    assert asking.sequence is not None
    driver.run()
    assert driver.text(turn) == "You said Alo?. That makes 1."
    assert driver.say(listening, chat("Devam")).finish_reason is FinishReason.STOP
