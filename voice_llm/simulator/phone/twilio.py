"""Twilio Media Streams, Twilio's side of it: what the telephone network sends a bot, and what a bot may answer.

Sans I/O: messages are built and read here, and sent elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from . import mulaw
from .audio import FRAME_SAMPLES, SAMPLE_RATE, Samples
from .errors import BotProtocolError

__all__ = ["BotClear", "BotMark", "BotMedia", "BotMessage", "TwilioStream"]

_SHOWN_CHARS: Final = 80


@dataclass(frozen=True, slots=True, eq=False)
class BotMedia:
    """Sound to be played after what is still unplayed."""

    samples: Samples


@dataclass(frozen=True, slots=True)
class BotMark:
    """To be sent back once all sound before it has been played."""

    name: str


@dataclass(frozen=True, slots=True)
class BotClear:
    """Sound that is still unplayed is to be dropped."""


BotMessage = BotMedia | BotMark | BotClear


class TwilioStream:
    """One call's stream: numbers the messages to the bot and checks those from it.

    Args:
        call_sid: The call's id; a fresh one by default.
        custom_parameters: What a TwiML ``<Parameter>`` would hand to the bot.
    """

    def __init__(self, *, call_sid: str | None = None, custom_parameters: Mapping[str, str] | None = None) -> None:
        self.call_sid = call_sid or f"CA{uuid4().hex}"
        self.stream_sid = f"MZ{uuid4().hex}"
        self.account_sid = f"AC{uuid4().hex}"
        self._custom_parameters = dict(custom_parameters or {})
        self._sequence_number = 0
        self._chunk = 0

    def connected(self) -> str:
        """Return the first message of a connection."""
        return json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})

    def start(self) -> str:
        """Return the second message: whose call it is, and how its sound is coded."""
        start = {
            "streamSid": self.stream_sid,
            "accountSid": self.account_sid,
            "callSid": self.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": SAMPLE_RATE, "channels": 1},
            "customParameters": self._custom_parameters,
        }
        return self._message("start", start)

    def media(self, frame: Samples) -> str:
        """Return the next 20 ms of the caller's sound.

        Args:
            frame: 160 samples.
        """
        timestamp_ms = self._chunk * FRAME_SAMPLES * 1000 // SAMPLE_RATE
        self._chunk += 1
        payload = base64.b64encode(mulaw.encode(frame)).decode("ascii")
        media = {"track": "inbound", "chunk": str(self._chunk), "timestamp": str(timestamp_ms), "payload": payload}
        return self._message("media", media)

    def mark(self, name: str) -> str:
        """Return the echo of a bot's mark."""
        return self._message("mark", {"name": name})

    def dtmf(self, digit: str) -> str:
        """Return a pressed key: ``0`` to ``9``, ``*`` or ``#``."""
        return self._message("dtmf", {"track": "inbound_track", "digit": digit})

    def stop(self) -> str:
        """Return the last message: the caller has hung up."""
        return self._message("stop", {"accountSid": self.account_sid, "callSid": self.call_sid})

    def read(self, data: str | bytes) -> BotMessage:
        """Read a message of the bot.

        Raises:
            BotProtocolError: It is none that Twilio takes, or for another stream.
        """
        try:
            message = json.loads(data)
        except ValueError:
            raise _not_understood("what is not JSON", data) from None
        if not isinstance(message, dict):
            raise _not_understood("JSON that is no object", data)
        if message.get("streamSid") != self.stream_sid:
            raise _not_understood("a message without this call's streamSid", data)
        match message:
            case {"event": "media", "media": {"payload": str(payload)}}:
                return BotMedia(_samples(payload))
            case {"event": "mark", "mark": {"name": str(name)}}:
                return BotMark(name)
            case {"event": "clear"}:
                return BotClear()
        raise _not_understood("a message that Twilio does not know", data)

    def _message(self, event: str, body: dict[str, Any]) -> str:
        self._sequence_number += 1
        return json.dumps(
            {"event": event, "sequenceNumber": str(self._sequence_number), event: body, "streamSid": self.stream_sid}
        )


def _samples(payload: str) -> Samples:
    try:
        return mulaw.decode(base64.b64decode(payload, validate=True))
    except (binascii.Error, ValueError):
        raise _not_understood("media whose payload is not base64", payload) from None


def _not_understood(what: str, data: str | bytes) -> BotProtocolError:
    shown = repr(data[:_SHOWN_CHARS]) + ("..." if len(data) > _SHOWN_CHARS else "")
    return BotProtocolError(f"the bot sent {what}: {shown}")
