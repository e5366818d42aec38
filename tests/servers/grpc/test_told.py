"""ToldTurns: bare texts of a history are what the call's sequence was really given, and nothing else is kept."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from tests.runtime.helpers import running
from voice_llm.prompt import Message
from voice_llm.runtime import Call
from voice_llm.servers.grpc.told import Exchange, ToldTurns

pytestmark = pytest.mark.unit


@pytest.fixture
async def call() -> Any:
    async with running() as engine, engine.open_call() as opened:
        yield opened


def exchange(asked: str, told: str, replied: str = "") -> Exchange:
    made = Exchange(asked, told)
    made.say(replied)
    return made


def history(*said: str) -> list[Message]:
    return [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(said)]


def recalled(told: ToldTurns, call: Call, *said: str) -> list[str]:
    return [message.content for message in told.recall(call, history(*said))]


async def test_questions_are_recalled_as_they_were_told_and_replies_stay(call: Call) -> None:
    told = ToldTurns()
    told.note(call, exchange("a?", "A?", "one"))
    told.note(call, exchange("b?", "B?", "two"))
    assert recalled(told, call, "a?", "one", "b?", "two") == ["A?", "one", "B?", "two"]
    assert recalled(told, call, "x?", "one", " b? ", "two") == ["x?", "one", "B?", "two"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (("a?", "one", "a?", "two", "a?", "three"), ("A1", "one", "A2", "two", "A3", "three")),
        (("a?", "two", "a?", "three"), ("A2", "two", "A3", "three")),  # the oldest turns were left out
        (("a?", "one"), ("A1", "one")),  # gone back
        (("a?", "tw"), ("A2", "tw")),  # spoken over
        (("a?", "t w  o"), ("A2", "t w  o")),
        (("a?", "else"), ("A3", "else")),
    ],
)
async def test_question_asked_more_than_once_is_the_one_that_was_answered_so(
    call: Call, said: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    told = ToldTurns()
    for number, reply in enumerate(("one", "two", "three"), start=1):
        told.note(call, exchange("a?", f"A{number}", reply))
    assert recalled(told, call, *said) == list(expected)


class Tried(str):
    """A reply that counts how often it is looked at."""

    __slots__ = ()
    times = 0

    def startswith(self, *args: Any) -> bool:
        Tried.times += 1
        return super().startswith(*args)


async def test_equal_questions_that_nothing_answers_are_looked_through_in_linear_time(call: Call) -> None:
    told = ToldTurns()
    for _ in range(1024):
        told.note(call, Exchange("a?", "A?", Tried("one")))
    Tried.times = 0
    recalled(told, call, *(["a?", "else"] * 512))
    assert 512 <= Tried.times <= 8 * 512


async def test_replies_are_part_of_what_is_bounded(call: Call) -> None:
    told = ToldTurns(max_chars=60)
    for asked in ("a?", "b?"):
        told.note(call, answered := Exchange(asked, asked.upper()))
        for _ in range(10):
            answered.say("word ")
        told.count(call, answered)
        told.count(call, answered)
        assert told.chars == len("a?A?") + 10 * len("word")
    assert recalled(told, call, "a?", "word", "b?") == ["a?", "word", "B?"]


async def test_of_a_long_reply_the_beginning_is_kept(call: Call) -> None:
    told = ToldTurns()
    long = "many words " * 1000
    for reply in (f"First {long}", f"Second {long}"):
        told.note(call, answered := exchange("a?", f"A {reply[0]}", reply))
        told.count(call, answered)
    assert told.chars < 4096
    assert recalled(told, call, "a?", f"First {long}", "a?", f"Second {long}")[::2] == ["A F", "A S"]


async def test_refused_question_is_forgotten(call: Call) -> None:
    told = ToldTurns()
    refused = exchange("a?", "A?")
    told.note(call, refused)
    told.forget(call, refused)
    told.forget(call, refused)
    assert recalled(told, call, "a?") == ["a?"]


async def test_calls_are_apart_and_one_that_is_gone_takes_its_texts_along() -> None:
    told = ToldTurns()
    async with running() as engine:
        first, second = await engine.open_call(), await engine.open_call()
        told.note(first, exchange("a?", "A?"))
        assert recalled(told, second, "a?") == ["a?"]
        told.note(second, exchange("a?", "B?"))
        await first.close()
        del first
        gc.collect()
        assert told.chars == len("a?B?")


async def test_what_is_kept_of_a_call_is_bounded(call: Call) -> None:
    told = ToldTurns(max_exchanges=2)
    for name in "abc":
        told.note(call, exchange(name, name.upper()))
    assert recalled(told, call, "a", "", "b", "", "c") == ["a", "", "B", "", "C"]


async def test_what_is_kept_of_all_calls_is_bounded_and_the_quiet_ones_go_first() -> None:
    told = ToldTurns(max_chars=10)
    async with running() as engine:
        calls = [await engine.open_call() for _ in range(3)]
        for call in calls:
            told.note(call, exchange("a?", "A?"))
        assert told.chars <= 10
        assert [recalled(told, call, "a?") for call in calls] == [["a?"], ["A?"], ["A?"]]
        told.note(calls[1], exchange("b" * 40, "B"))
        assert [recalled(told, call, "a?") for call in calls] == [["a?"]] * 3
        assert recalled(told, calls[1], "b" * 40) == ["B"]
        for call in calls:
            await call.close()
