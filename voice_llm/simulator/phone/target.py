"""AudioTarget: scenarios as phone calls with sound, to a bot's telephony WebSocket."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from ...errors import VoiceLLMError
from ..exchange import describe
from ..results import CallResult, TurnResult
from ..script import CallerTurn, CallScript, Moment
from .conversation import Manners
from .errors import PhoneCallError
from .phone_caller import PhoneCaller
from .piper_voice import PiperCallerVoice
from .results import PhoneCall, PhoneTurn
from .script import Line, SpokenLine, Voice, speak_lines

__all__ = ["AudioTarget"]

_NOISE_DBFS: Final = -60.0
_SPEECH_DBFS: Final = -20.0


class AudioTarget:
    """A bot that is called with a synthesised voice.

    What the bot says is known as sound only: expectations of its words are not judged, its times are. A caller breaks
    in so long after the reply became audible; a word cannot be waited for. Nor have hanging up in
    a reply, ``stop_on_failure``, expectations of silences and ``speed`` any effect.

    Args:
        url: The bot's WebSocket, such as ``ws://127.0.0.1:7860/ws``.
        voice: Speaks the caller's lines; Piper's by default, which is English.
        waits_for_greeting: Whether the bot speaks first.
    """

    def __init__(self, url: str, *, voice: Voice | None = None, waits_for_greeting: bool = True) -> None:
        self._url = url
        self._voice = voice or PiperCallerVoice()
        self._waits_for_greeting = waits_for_greeting
        self._spoken = lru_cache(maxsize=256)(self._speak)

    async def hold(
        self,
        script: CallScript,
        call_id: str,
        *,
        clock: Callable[[], float],
        on_turn: Callable[[TurnResult], bool],
    ) -> CallResult:
        """Hold a call; what goes wrong is in the result."""
        started_s = clock()
        turns: tuple[TurnResult, ...] = ()
        error: str | None = None
        try:
            lines = await asyncio.to_thread(lambda: [self._spoken(line) for line in _lines(script)])
            manners = Manners(
                wait_for_greeting=self._waits_for_greeting, pause_s=script.think_s, noise_dbfs=_noise_dbfs(script)
            )
            caller = PhoneCaller(self._url, lines, manners=manners, clock=clock, call_sid=call_id)
            began_s = clock()
            call: PhoneCall | None
            try:
                call = await caller.call()
            except PhoneCallError as failure:
                error = describe(failure)
                call = failure.call
            numbers = [number for number, turn in enumerate(script.spoken_turns) if turn.text]
            turns = tuple(_turns(call, numbers, call_id, began_s)) if call is not None else ()
        except VoiceLLMError as failure:
            error = describe(failure)
        for turn in turns:
            on_turn(turn)
        return CallResult(
            call_id=call_id, script=script.name, started_s=started_s, ended_s=clock(), turns=turns, error=error
        )

    def _speak(self, line: Line) -> SpokenLine:
        return speak_lines([line], self._voice)[0]


def _lines(script: CallScript) -> Iterator[Line]:
    silent_s = 0.0
    for turn in script.spoken_turns:
        if not turn.text:
            silent_s += turn.silence_s
            continue
        yield _line(turn, silent_s + (script.think_s if turn.think_s is None else turn.think_s))
        silent_s = 0.0


def _line(turn: CallerTurn, pause_s: float) -> Line:
    return Line(text=turn.text, pause_s=max(pause_s, 0.1), barge_in_after_s=_after_s(turn.starts))


def _after_s(moment: Moment | None) -> float | None:
    return None if moment is None else max(moment.delay_s, 0.3)


def _noise_dbfs(script: CallScript) -> float:
    snr_db = script.noise_snr_db
    return _NOISE_DBFS if snr_db is None else _SPEECH_DBFS - snr_db


def _turns(call: PhoneCall, numbers: Sequence[int], call_id: str, began_s: float) -> Iterator[TurnResult]:
    """Read the turns; that a reply was broken off is known from the line after it."""
    for turn, following, number in zip(call.turns, [*call.turns[1:], None], numbers, strict=False):
        stopped_ms = following.stop_ms if following is not None and following.barge_in else None
        interrupted_ms = turn.stop_ms if turn.barge_in else None
        # A bot may talk on through the words that broke it off.
        latest_s = math.inf if following is None else following.speech_end_s
        yield _turn(turn, number, call_id, began_s, stopped_ms, interrupted_ms, latest_s)


def _turn(
    turn: PhoneTurn,
    number: int,
    call_id: str,
    began_s: float,
    stopped_ms: float | None,
    interrupted_ms: float | None,
    latest_s: float,
) -> TurnResult:
    heard = turn.reply_start_s is not None
    first_ms = turn.voice_to_voice_ms if heard else None
    if first_ms is not None and not (math.isfinite(first_ms) and first_ms >= 0):
        first_ms = 0.0  # the bot spoke into the end of the line
    until_s = min(turn.reply_end_s if turn.reply_end_s is not None else turn.speech_end_s, latest_s)
    return TurnResult(
        call_id=call_id,
        turn=number,
        said=turn.said,
        spoke_s=began_s + turn.speech_start_s,
        asked_s=began_s + turn.speech_end_s,
        first_speech_ms=first_ms,
        first_audio_ms=first_ms,
        total_ms=max(0.0, (until_s - turn.speech_end_s) * 1e3, first_ms or 0.0),
        heard_until_s=began_s + until_s if heard else None,
        text=turn.reply or "",
        is_sound=turn.reply is None,
        stopped_ms=stopped_ms,
        interrupted_ms=interrupted_ms,
        error=None if heard else "no_reply: nothing was heard",
    )
