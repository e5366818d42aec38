"""PhoneCaller: a caller with sound, on the other end of a bot's telephony WebSocket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ...errors import ConfigError
from .audio import FRAME_S, FRAME_SAMPLES, Samples, silence
from .conversation import Conversation, Manners
from .errors import BotHungUpError, BotUnreachableError, PhoneCallError
from .measure import greeting_ms, measure_turns
from .playback import Playback
from .recording import Recording
from .results import PhoneCall
from .script import SpokenLine
from .twilio import BotClear, BotMark, BotMedia, TwilioStream

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["PhoneCaller"]

_CONNECT_TIMEOUT_S: Final = 10.0


class PhoneCaller:
    """Calls a bot once, says its lines, listens, and hangs up.

    A frame is sent once it has been spoken, and what has come in by the beginning of a frame is heard in it: latencies
    are those of the caller's ear, never flattered, and at most one frame too long.

    Args:
        url: The bot's WebSocket, such as ``ws://127.0.0.1:7860/ws``.
        lines: What to say.
        manners: How to behave.
        call_sid: The call's id; a fresh one by default.
        custom_parameters: What the bot gets to know about the call.
        on_turn: Called when a line is begun, with its number from 0.
        clock: Monotonic seconds.
        sleep: Waits on that clock.
        wall_clock: Unix seconds.
    """

    def __init__(
        self,
        url: str,
        lines: Sequence[SpokenLine],
        *,
        manners: Manners | None = None,
        call_sid: str | None = None,
        custom_parameters: Mapping[str, str] | None = None,
        on_turn: Callable[[int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._manners = manners or Manners()
        self._stream = TwilioStream(call_sid=call_sid, custom_parameters=custom_parameters)
        self._conversation = Conversation(lines, self._manners)
        self._playback = Playback()
        self._on_turn = on_turn
        self._clock, self._sleep, self._wall_clock = clock, sleep, wall_clock
        self._said: list[Samples] = []
        self._heard: list[Samples] = []
        self._cuts: list[int] = []
        self._started_unix_s = 0.0
        self._max_late_s = 0.0
        self._bot_hung_up = False

    async def call(self) -> PhoneCall:
        """Place the call; to be awaited once.

        Returns:
            The whole call.

        Raises:
            BotUnreachableError: There is no WebSocket at the address.
            BotProtocolError: The bot sent what is no message of Twilio's.
            BotHungUpError: The bot closed the connection too early.
            NoReplyError: The bot was silent for too long.
            CallTooLongError: The call was not over in time.
            ConfigError: The package ``websockets`` is missing.
        """
        async with await self._connect() as socket:
            try:
                await self._talk(socket)
            except PhoneCallError as error:
                error.call = self._result()
                raise
        return self._result()

    async def _connect(self) -> ClientConnection:
        websockets = _import_websockets()
        try:
            # A telephone network neither compresses nor asks the environment for a proxy.
            connection: ClientConnection = await websockets.connect(
                self._url, compression=None, proxy=None, open_timeout=_CONNECT_TIMEOUT_S, max_size=None
            )
        except (OSError, ValueError, websockets.WebSocketException) as error:
            raise BotUnreachableError(f"no bot answers at {self._url}: {error}") from error
        return connection

    async def _talk(self, socket: ClientConnection) -> None:
        closed = _import_websockets().ConnectionClosed
        listening = asyncio.create_task(self._receive(socket))
        try:
            await socket.send(self._stream.connected())
            await socket.send(self._stream.start())
            await self._exchange_frames(socket, listening)
            if not self._bot_hung_up:
                await socket.send(self._stream.stop())
        except closed:
            await asyncio.wait([listening])
            if isinstance(error := listening.exception(), PhoneCallError):
                raise error from None
            self._check_hang_up()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _exchange_frames(self, socket: ClientConnection, listening: asyncio.Task[None]) -> None:
        start_s = self._clock()
        self._started_unix_s = self._wall_clock()
        for number in count():
            # By the stream's clock, so that no delay adds up.
            ahead_s = start_s + number * FRAME_S - self._clock()
            self._max_late_s = max(self._max_late_s, -ahead_s)
            await self._sleep(max(0.0, ahead_s))
            if self._said:
                await socket.send(self._stream.media(self._said[-1]))
            if listening.done():
                listening.result()
                self._check_hang_up()
                return
            await self._exchange_frame(socket)
            if self._conversation.finished:
                return

    async def _exchange_frame(self, socket: ClientConnection) -> None:
        heard, marks = self._playback.play()
        begun = len(self._conversation.utterances)
        said = self._conversation.step(heard)
        self._heard.append(heard)
        self._said.append(said)
        if self._on_turn is not None and len(self._conversation.utterances) > begun:
            self._on_turn(begun)
        for name in marks:
            await socket.send(self._stream.mark(name))

    async def _receive(self, socket: ClientConnection) -> None:
        async for data in socket:
            match self._stream.read(data):
                case BotMedia(samples):
                    self._playback.receive(samples)
                case BotMark(name):
                    self._playback.mark(name)
                case BotClear():
                    if self._playback.unplayed_samples:
                        self._cuts.append(len(self._heard) * FRAME_SAMPLES)
                        self._conversation.reply_dropped()
                    for name in self._playback.clear():
                        await socket.send(self._stream.mark(name))

    def _check_hang_up(self) -> None:
        """The bot has closed the connection: that is the end of the call, or a failure."""
        self._bot_hung_up = True
        if not self._conversation.answered:
            said = len(self._conversation.utterances)
            raise BotHungUpError(f"the bot hung up before the call was over, after {said} of the caller's lines")

    def _result(self) -> PhoneCall:
        bot = np.concatenate([silence(0), *self._heard])
        utterances = self._conversation.utterances
        return PhoneCall(
            call_id=self._stream.call_sid,
            started_unix_s=self._started_unix_s,
            greeting_ms=greeting_ms(bot, utterances),
            turns=measure_turns(
                bot,
                utterances,
                started_unix_s=self._started_unix_s,
                pause_s=self._manners.pause_s,
                cuts=self._cuts,
            ),
            recording=Recording(np.concatenate([silence(0), *self._said]), bot),
            hung_up_by="bot" if self._bot_hung_up else "caller",
            max_late_ms=self._max_late_s * 1000,
        )


def _import_websockets() -> Any:
    try:
        import websockets
    except ImportError:
        raise ConfigError('a caller with sound needs websockets: pip install "pipecat-voice-llm[simulator]"') from None
    return websockets
