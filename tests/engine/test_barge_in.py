"""After a barge-in the row is free with the next step, and nothing of the call's cache is computed again."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_llm.config.engine import EngineConfig
from voice_llm.engine.prefix import common_prefix_length
from voice_llm.events import FinishReason
from voice_llm.testing import FakeBackend

from .driver import HEADER, Driver, chat

pytestmark = pytest.mark.unit

REPLY: Final = "Elbette, hemen bakıyorum. Your parcel is on its way, and comes tomorrow. Başka bir şey var mı?"
QUESTIONS: Final = ("Paketim nerede kaldı?", "Where is my parcel? " * 5, "Dur!")
# Of the tokens before the new message, those that close the reply that was heard.
MOST_TOKENS: Final = 3


def before_question(backend: FakeBackend, *said: str) -> list[int]:
    """The tokens of a history, up to where the next question's message begins."""
    text = chat(*said, "?").removesuffix(f"<|im_start|>user\n?<|im_end|>\n{HEADER}")
    return backend.tokenize(text, parse_special=True)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=8),
    st.integers(0, 7),
    st.integers(0, 90),
    st.sampled_from(QUESTIONS),
    st.integers(0, len(REPLY)),
    st.sampled_from((6, 512)),
)
def test_interrupted_at_any_moment(
    joins: list[int], victim: int, steps: int, question: str, heard_chars: int, batch_tokens: int
) -> None:
    """``joins`` says after how many steps each of the calls asks; one of them is spoken over ``steps`` later."""
    driver = Driver(
        sequences=6,  # so that some may have to wait for a place
        max_calls=8,
        reply=lambda _: REPLY,
        max_batch_tokens=batch_tokens,
        config=EngineConfig(max_step_ms=60),
    )
    turns = []
    for joined in joins:
        for _ in range(joined):
            driver.step()
        turns.append(driver.turn(driver.open(), chat(question)))
    turn = turns[victim % len(turns)]
    for _ in range(steps):
        driver.step()
    prompt_was_done = turn.state.value in ("talking", "done")
    drawn = len(turn.work.generated)
    driver.batcher.cancel(turn, FinishReason.INTERRUPTED)
    sequence = turn.call.sequence
    held = list(sequence.tokens) if sequence else []

    driver.step()
    assert turn.state.value == "done"
    assert turn.call.request is None, "the row is free within a step"
    for _ in range(2):
        driver.step()
    assert len(turn.work.generated) == drawn
    if sequence is not None and turn.call.sequence is sequence:
        assert sequence.tokens == driver.backend.tokens_of(sequence.id) == held, "nothing more was decoded for it"

    heard = driver.text(turn)[:heard_chars].strip()
    said = (question, heard or "Efendim?")  # who has heard nothing is asked what is wrong
    known = before_question(driver.backend, *said)
    following = driver.turn(turn.call, chat(*said, "Dur, bir şey daha soracağım."))
    driver.run()
    assert driver.text(following).strip() == REPLY
    had = len(known) if heard and prompt_was_done else common_prefix_length(held, known)
    assert following.cached_tokens >= had - MOST_TOKENS
    for request in turns:
        driver.batcher.close_call(request.call)
    driver.run()
    driver.assert_nothing_is_left()
