"""Turns of a call, measured on the sound that the caller said and heard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .audio import FRAME_SAMPLES, SAMPLE_RATE, Samples
from .conversation import Utterance
from .results import PhoneTurn
from .speech_edges import first_audible, last_audible, speech_regions

__all__ = ["greeting_ms", "measure_turns"]

_SILENT_SAMPLES: Final = SAMPLE_RATE // 10


def greeting_ms(bot: Samples, utterances: Sequence[Utterance]) -> float | None:
    """Return when the bot was first heard, in milliseconds, where that was before the caller spoke."""
    start = first_audible(bot[: utterances[0].speech_start] if utterances else bot)
    return None if start is None else _ms(start)


def measure_turns(
    bot: Samples,
    utterances: Sequence[Utterance],
    *,
    started_unix_s: float,
    pause_s: float = 0.8,
    cuts: Sequence[int] = (),
) -> tuple[PhoneTurn, ...]:
    """Measure each utterance and the reply to it.

    Args:
        bot: What the caller heard.
        utterances: What the caller said, and where in the same clock.
        started_unix_s: When sample 0 was, on the wall clock.
        pause_s: A silence this long ends a reply; a shorter one is a pause inside of it.
        cuts: Where the bot dropped sound that it had sent and that was still unplayed.
    """
    stops = [_interrupted_at(bot, utterance, pause_s) for utterance in utterances]
    turns = []
    for number, (utterance, stop) in enumerate(zip(utterances, stops, strict=True)):
        ends = [following.speech_start for following in utterances[number + 1 : number + 2]]
        dropped = [cut for cut in cuts if utterance.speech_end < cut < min(ends, default=len(bot))]
        # The reply goes on into the line that interrupts it.
        limit = max([*ends, *(s for s in stops[number + 1 : number + 2] if s is not None)], default=len(bot))
        start, end = _reply(bot, max(utterance.speech_end, stop or 0), limit)
        dropped = [] if start is None else [cut for cut in dropped if cut > start]
        answer, _ = _reply(bot, dropped[-1], limit) if dropped else (start, end)
        turns.append(
            PhoneTurn(
                said=utterance.spoken.line.text,
                speech_start_s=utterance.speech_start / SAMPLE_RATE,
                speech_end_s=utterance.speech_end / SAMPLE_RATE,
                speech_start_unix_s=started_unix_s + utterance.speech_start / SAMPLE_RATE,
                speech_end_unix_s=started_unix_s + utterance.speech_end / SAMPLE_RATE,
                reply_start_s=None if start is None else start / SAMPLE_RATE,
                reply_end_s=None if end is None else end / SAMPLE_RATE,
                voice_to_voice_ms=None if start is None else _ms(start - utterance.speech_end),
                broken_off=len(dropped),
                answer_ms=None if answer is None else _ms(answer - utterance.speech_end),
                barge_in=stop is not None,
                stop_ms=None if stop is None else _ms(max(0, stop - utterance.speech_start)),
                talked_over=first_audible(bot[max(utterance.speech_start, stop or 0) : utterance.speech_end])
                is not None,
            )
        )
    return tuple(turns)


def _interrupted_at(bot: Samples, utterance: Utterance, pause_s: float) -> int | None:
    """Return where the reply that an utterance interrupts was heard last."""
    if not utterance.interrupts:
        return None
    # The utterance was begun because the bot was heard in the frame before.
    begin = utterance.start - FRAME_SAMPLES
    end = None
    for limit in (utterance.speech_end, len(bot)):
        regions = speech_regions(bot[begin:limit], merge_gap_s=pause_s)
        if not regions or begin + regions[0][0] >= utterance.speech_start:
            return None
        end = begin + regions[0][1]
        # A bot that is silent when the caller ends has stopped; what comes then is the next reply, however soon.
        if end < utterance.speech_end - _SILENT_SAMPLES:
            break
    return end


def _reply(bot: Samples, begin: int, limit: int) -> tuple[int | None, int | None]:
    start, end = first_audible(bot[begin:limit]), last_audible(bot[begin:limit])
    return (None if start is None else begin + start), (None if end is None else begin + end)


def _ms(samples: int) -> float:
    return samples * 1000 / SAMPLE_RATE
