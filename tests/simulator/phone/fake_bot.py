"""A bot of Twilio's Media Streams that answers silence with a tone: what it did and when is known exactly."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from voice_llm.simulator.phone import Samples, mulaw

LOUD = 1000


def tone(seconds: float, *, hertz: float = 440.0, height: int = 8000) -> Samples:
    """A sine that is loud from its first sample on."""
    times = np.arange(round(seconds * 8000)) / 8000
    return (height * np.cos(2 * np.pi * hertz * times)).astype(np.int16)


@dataclass
class FakeBot:
    """Says a tone ``reply_after_s`` after it has heard the caller's last loud sample; stops when it is talked over."""

    greeting_s: float = 0.0
    reply_s: float = 0.6
    reply_after_s: float = 0.5
    stops_after_s: float | None = 0.2
    silent: bool = False
    garbage: str | bytes | None = None
    hang_up_after_replies: int | None = None
    marks: bool = False
    packet_s: float = 0.04
    received: list[dict[str, Any]] = field(default_factory=list)
    heard: list[Samples] = field(default_factory=list)
    arrivals_s: list[float] = field(default_factory=list)
    drops_first_reply_after_s: float | None = None
    replies: int = 0
    port: int = 0
    _speaking: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeBot]:
        async with serve(self._serve, "127.0.0.1", 0, compression=None) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            yield self

    def events(self, name: str) -> list[dict[str, Any]]:
        return [message for message in self.received if message["event"] == name]

    async def _serve(self, socket: ServerConnection) -> None:
        try:
            await self._answer(socket)
        except ConnectionClosed:
            pass
        finally:
            if self._speaking is not None:
                self._speaking.cancel()

    async def _answer(self, socket: ServerConnection) -> None:
        talk_samples = quiet_samples = 0
        answered = True
        async for data in socket:
            message = json.loads(data)
            self.received.append(message)
            if message["event"] == "start":
                stream = message["streamSid"]
                if self.garbage is not None:
                    await socket.send(self.garbage)
                    if self.hang_up_after_replies == 0:
                        return
                if self.greeting_s:
                    self._say(socket, stream, self.greeting_s)
            if message["event"] != "media":
                continue
            frame = mulaw.decode(base64.b64decode(message["media"]["payload"]))
            self.heard.append(frame)
            self.arrivals_s.append(asyncio.get_running_loop().time())
            loud = np.flatnonzero(np.abs(frame.astype(int)) > LOUD)
            if len(loud):
                answered, quiet_samples = False, len(frame) - int(loud[-1]) - 1
                talk_samples += len(frame)
                if self.stops_after_s is not None and talk_samples >= self.stops_after_s * 8000 and self._talks:
                    await self._stop(socket, stream)
            else:
                quiet_samples += len(frame)
            if not answered and quiet_samples >= self.reply_after_s * 8000:
                answered, talk_samples = True, 0
                if self.hang_up_after_replies == self.replies:
                    return
                if not self.silent:
                    self._say(socket, stream, self.reply_s)

    @property
    def _talks(self) -> bool:
        return self._speaking is not None and not self._speaking.done()

    async def _stop(self, socket: ServerConnection, stream: str) -> None:
        assert self._speaking is not None
        self._speaking.cancel()
        await socket.send(json.dumps({"event": "clear", "streamSid": stream}))

    def _say(self, socket: ServerConnection, stream: str, seconds: float) -> None:
        self._speaking = asyncio.create_task(self._send_tone(socket, stream, seconds))

    async def _send_tone(self, socket: ServerConnection, stream: str, seconds: float) -> None:
        self.replies += 1
        sound, packet = tone(seconds), round(self.packet_s * 8000)
        for begin in range(0, len(sound), packet):
            payload = base64.b64encode(mulaw.encode(sound[begin : begin + packet])).decode()
            await socket.send(json.dumps({"event": "media", "streamSid": stream, "media": {"payload": payload}}))
            if self.replies == 1 and self.drops_first_reply_after_s == round(begin / 8000, 3):
                await socket.send(json.dumps({"event": "clear", "streamSid": stream}))
                await asyncio.sleep(2.0)
                self.replies += 1
            # Twice as fast as it is played, like Pipecat's transport.
            await asyncio.sleep(self.packet_s / 2)
        if self.marks:
            await socket.send(json.dumps({"event": "mark", "streamSid": stream, "mark": {"name": f"r{self.replies}"}}))
        # What was sent is still being played for as long again.
        await asyncio.sleep(seconds / 2)
