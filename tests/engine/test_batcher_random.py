"""DynamicBatcher under thousands of random operations: nothing is lost, leaked or mixed up."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_llm.config.engine import EngineConfig
from voice_llm.engine import Failed, LiveCall, Request
from voice_llm.errors import AtCapacityError, BackendError, CallBusyError, ContextFullError, ContextTooLongError
from voice_llm.events import Finished, FinishReason, Prefilled
from voice_llm.text import TextPipeline

from .driver import HEADER, Driver, chat

pytestmark = pytest.mark.unit

CONTEXT_TOKENS: Final = 700
SYSTEMS: Final = ("Kısa ve nazik konuş. " * 3, "You are brief. " * 4, "")
QUESTIONS: Final = ("Merhaba", "Fiyatı ne kadar?", "Do you ship to Ağrı?", "Görüşürüz, iyi günler!", "Evet 😊")


def reply_to(prompt: str) -> str:
    """A reply that no other prompt gets; sometimes none at all."""
    number = zlib.crc32(prompt.encode())
    sentences = (f"Cevabınız {number}.", "Şöyle söyleyeyim: öğlene hazır olur.", "Anything else?")
    return " ".join(sentences[: number % 4])


def spoken(reply: str) -> str:
    text = TextPipeline()
    return text.decode(reply.encode()).text + text.flush().text


@dataclass(eq=False)
class Caller:
    """A call and what was said in it: caller and assistant take turns, the caller first."""

    call: LiveCall
    system: str
    said: list[str] = field(default_factory=list)
    turn: Request | None = None


class Crowd:
    """Callers who do what comes to their minds."""

    def __init__(self, rng: random.Random, driver: Driver, *, failures: bool) -> None:
        self.rng = rng
        self.driver = driver
        self.callers: list[Caller] = []
        self.requests: list[Request] = []
        actions: dict[Callable[[], None], int] = {
            self.open: 8,
            self.ask: 22,
            self.hint: 10,
            self.cancel: 8,
            self.interrupt: 5,
            self.rewrite_history: 4,
            self.close: 3,
            self.ask_too_much: 2,
            self.go_on: 45,
        }
        if failures:
            actions[self.fail] = 2
        self._actions, self._weights = list(actions), list(actions.values())

    def act(self) -> None:
        self.rng.choices(self._actions, self._weights)[0]()
        self.driver.step()

    def pick(self) -> Caller | None:
        return self.rng.choice(self.callers) if self.callers else None

    def open(self) -> None:
        try:
            call = self.driver.open(self.rng.choice(("acme", "rival")))
        except AtCapacityError:
            assert len(self.callers) == self.driver.batcher.calls.max_calls
            return
        self.callers.append(Caller(call, self.rng.choice(SYSTEMS)))

    def ask(self) -> None:
        if (caller := self.pick()) is None:
            return
        self._note_reply(caller)
        question = self.rng.choice(QUESTIONS)
        prompt = chat(*caller.said, question, system=caller.system)
        try:
            caller.turn = self.driver.turn(caller.call, prompt, max_tokens=self.rng.choice((1, 9, 120)))
        except CallBusyError:
            assert caller.turn is not None
            assert caller.turn.state.value != "done"
        except ContextTooLongError:
            caller.said = []
        else:
            self.requests.append(caller.turn)
            caller.said.append(question)

    def hint(self) -> None:
        caller = self.pick()
        if caller is None or (caller.turn and caller.turn.state.value != "done"):
            return
        self._note_reply(caller)
        prompt = chat(*caller.said, self.rng.choice(QUESTIONS), system=caller.system)
        prompt = prompt[: self.rng.randrange(1, len(prompt))]
        try:
            self.requests.append(self.driver.hint(caller.call, prompt))
        except ContextTooLongError:
            caller.said = []

    def cancel(self) -> None:
        if self.requests:
            self.driver.batcher.cancel(self.rng.choice(self.requests[-8:]))

    def interrupt(self) -> None:
        if (caller := self.pick()) is not None and caller.turn is not None:
            self.driver.batcher.cancel(caller.turn, FinishReason.INTERRUPTED)

    def rewrite_history(self) -> None:
        if (caller := self.pick()) is not None and len(caller.said) > 2:
            keep = self.rng.randrange(0, len(caller.said) // 2)
            caller.said = caller.said[2 * keep :]
            if len(caller.said) > 1:
                caller.said[1] = caller.said[1][: self.rng.randrange(len(caller.said[1]) + 1)]

    def close(self) -> None:
        if (caller := self.pick()) is not None:
            self.callers.remove(caller)
            self.driver.batcher.close_call(caller.call)

    def ask_too_much(self) -> None:
        if (caller := self.pick()) is not None and caller.call.request is None:
            with pytest.raises(ContextTooLongError):
                self.driver.turn(caller.call, chat("x" * CONTEXT_TOKENS))

    def fail(self) -> None:
        self.driver.backend.fail_next(self.rng.choice((BackendError("failed"), ContextFullError("full"))))

    def go_on(self) -> None:
        for _ in range(self.rng.randrange(12)):
            self.driver.step()

    def _note_reply(self, caller: Caller) -> None:
        """What was heard of the last reply becomes history: all of it, or the part before an interruption."""
        if len(caller.said) % 2 and (caller.turn is None or caller.turn.state.value == "done"):
            heard = self.driver.text(caller.turn) if caller.turn else ""
            whole = self.rng.random() < 0.7
            caller.said.append(heard if whole else heard[: self.rng.randrange(len(heard) + 1)])

    def check_replies(self) -> None:
        """Every request has one end, and every reply is what the model says to that very prompt."""
        header = len(self.driver.backend.tokenize(HEADER, parse_special=True))
        for request in self.requests:
            end = self.driver.end(request)
            if request.turn is None:
                continue
            expected = spoken(reply_to(self.driver.backend.text_of(request.prompt[:-header])))
            if isinstance(end, Finished) and end.reason is FinishReason.STOP:
                assert self.driver.text(request) == expected
            else:
                assert expected.startswith(self.driver.text(request))

    def decoded_tokens(self) -> int:
        """What all requests together say they had the backend decode."""
        total = 0
        for request in self.requests:
            total += request.computed_tokens - request.cached_tokens
            if request.turn is not None and request.turn.generated:
                total += len(request.turn.generated) - 1
        return total


def run_crowd(seed: int, operations: int, *, failures: bool, **options: Any) -> Crowd:
    driver = Driver(reply=reply_to, context_per_call=CONTEXT_TOKENS, token_ms=1.0, **options)
    crowd = Crowd(random.Random(seed), driver, failures=failures)
    for _ in range(operations):
        crowd.act()
    driver.run()
    for caller in crowd.callers:
        driver.batcher.close_call(caller.call)
    driver.run()
    driver.assert_nothing_is_left()
    crowd.check_replies()
    return crowd


SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "split": {"sequences": 5},
    "unified": {"sequences": 5, "split_kv": False},
    "parking": {"sequences": 3, "max_calls": 9, "config": EngineConfig(parked_bytes=1024 * 900)},
    "short-steps": {"sequences": 8, "config": EngineConfig(max_step_ms=20), "max_batch_tokens": 6},
    "little-memory": {"sequences": 4, "config": EngineConfig(saved_state_bytes=1024 * 150, parked_bytes=0)},
    "sliding-window": {"sequences": 4, "max_calls": 6, "sliding_window": 48},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_two_thousand_random_operations_leave_nothing_behind(name: str) -> None:
    crowd = run_crowd(20_261, 2000 if name == "split" else 600, failures=True, **SETTINGS[name])
    ends = [crowd.driver.end(r) for r in crowd.requests]
    # The run is worth something only if everything happened in it.
    assert {e.reason for e in ends if isinstance(e, Finished)} >= {
        FinishReason.STOP,
        FinishReason.LENGTH,
        FinishReason.CANCELLED,
        FinishReason.INTERRUPTED,
    }
    assert any(isinstance(e, Prefilled) for e in ends)
    assert any(isinstance(e, Failed) for e in ends)
    counters = crowd.driver.batcher.counters
    assert counters.failed_steps > 0
    if name == "parking":
        assert counters.parked > 20
    if name == "split":
        assert counters.rehomed > 0


@pytest.mark.parametrize("name", SETTINGS)
def test_every_decoded_token_is_accounted_for(name: str) -> None:
    crowd = run_crowd(7, 300, failures=False, **SETTINGS[name])
    assert crowd.driver.backend.counters.decoded_tokens == crowd.decoded_tokens()
    assert not any(isinstance(crowd.driver.end(r), Failed) for r in crowd.requests)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(SETTINGS)), st.integers(1, 80))
def test_no_order_of_operations_leaves_anything_behind(seed: int, name: str, operations: int) -> None:
    run_crowd(seed, operations, failures=True, **SETTINGS[name])
