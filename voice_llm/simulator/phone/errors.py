"""What can go wrong in a phone call with a bot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import VoiceLLMError

if TYPE_CHECKING:
    from .results import PhoneCall

__all__ = [
    "BotHungUpError",
    "BotProcessError",
    "BotProtocolError",
    "BotUnreachableError",
    "CallLogError",
    "CallTooLongError",
    "NoReplyError",
    "PhoneCallError",
]


class PhoneCallError(VoiceLLMError):
    """A phone call did not go as it should.

    Attributes:
        call: The call until then, where one had begun: its recording and turns can still be looked at.
    """

    code = "phone_call"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.call: PhoneCall | None = None


class BotUnreachableError(PhoneCallError):
    """Nothing that speaks WebSocket answers at the bot's address."""


class BotProtocolError(PhoneCallError):
    """The bot sent something that is no message of Twilio's Media Streams."""


class BotHungUpError(PhoneCallError):
    """The bot closed the connection before the caller had heard the last reply."""


class NoReplyError(PhoneCallError):
    """The bot stayed silent for longer than the caller waits."""


class CallTooLongError(PhoneCallError):
    """The call was not over within its time limit."""


class BotProcessError(PhoneCallError):
    """The bot's process died, or did not accept calls in time; the message ends with the last lines that it wrote."""


class CallLogError(PhoneCallError):
    """The bot's call log cannot be read."""
