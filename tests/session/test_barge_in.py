"""A caller who lets nobody finish: each next turn finds in the cache what had been computed and heard."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import pytest

from voice_llm.events import FinishReason
from voice_llm.runtime import Engine
from voice_llm.session import CallSession

from ..runtime.helpers import GatedBackend
from .helpers import calling, end_of, read, settled

pytestmark = pytest.mark.unit

REPLIES: Final = (
    "Elbette, hemen bakıyorum. Siparişiniz yolda, öğlene sizde olur. Başka bir şey var mı?",
    "Of course. **Your parcel** is on its way; it comes _tomorrow_, at about 10:30. Anything else?",
    "<think>Kısa konuş.</think>Bir dakika lütfen… Şimdi görüyorum: ödemeniz alınmış 😊, teşekkürler.",
)
BARGE_INS: Final = 3
# Of the tokens before the new message, those that close the reply that was heard.
MOST_TOKENS: Final = 3


def reply_to(prompt: str) -> str:
    return REPLIES[prompt.count("<|im_start|>user") % len(REPLIES)]


async def before_question(session: CallSession, engine: Engine) -> int:
    """How many tokens of the prompt come before the message that the caller has just said."""
    loop, tokens_of = asyncio.get_running_loop(), session._open_call()._tokens
    tokens = await loop.run_in_executor(
        engine._prompts, lambda: tokens_of(session.messages, None, (), 0, open_ended=True)
    )
    return len(tokens) - 1 - tokens[::-1].index(engine.backend.control_tokens["<|im_start|>"])


def barge_in(session: CallSession, turn_id: str, chance: random.Random) -> None:
    """Speak over the reply, and tell in one of three ways what was heard of it."""
    told = session._turn.playback.text if session._turn is not None else ""
    how = chance.choice(("quoted", "reported", "estimated"))
    if how == "reported":
        session.played(turn_id, 0, chance.randint(0, 4000))
    session.interrupt(" ".join(told.split(" ")[: chance.randint(0, 12)]) if how == "quoted" else None)


@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "after-a-pause"])
@pytest.mark.parametrize("seed", range(8))
async def test_nothing_that_was_heard_is_computed_again(seed: int, *, at_once: bool) -> None:
    """``at_once``: the next turn comes with the interruption; else the words that interrupt take their time."""
    chance = random.Random(seed)
    backend = GatedBackend(sequences=1, reply=reply_to)
    async with calling(backend, system_prompt="Kısa ve nazik konuş.") as (session, engine):
        for number in range(0, 2 * BARGE_INS, 2):
            await settled(engine)
            drawn = chance.randint(at_once, 80)  # none: in the middle of the prompt
            backend.hold(after_tokens=drawn)
            reading = asyncio.create_task(read(session.start_turn("Nerede kaldı?", turn_id=f"t{number}")))
            await backend.held()
            await asyncio.sleep(0)
            barge_in(session, f"t{number}", chance)
            if not at_once:
                backend.release()
                await settled(engine)
            following = session.start_turn("Dur, bir şey daha soracağım.", turn_id=f"t{number + 1}")
            known_tokens = await before_question(session, engine)
            backend.release()
            end = end_of(await reading)
            assert end.finish_reason is FinishReason.INTERRUPTED
            assert end.usage.completion_tokens <= drawn + 1, "the token that was being drawn, and no other"
            usage = end_of(await read(following)).usage
            assert usage.cached_tokens >= known_tokens - MOST_TOKENS
