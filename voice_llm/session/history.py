"""History: what was said in a call, as far as it was heard."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from ..prompt import Message

__all__ = ["History", "Playback"]

# No prompt holds more text than so many times its tokens: what is older need not be kept.
_MAX_CHARS_A_TOKEN: Final = 8
# What stands around a message in a prompt: without it, empty ones would be free.
_CHARS_A_MESSAGE: Final = 32


class History:
    """The messages of a call, oldest first.

    Args:
        system_prompt: First message, if not empty.
        messages: What was said before, for a call that goes on.
        room_tokens: What a prompt can hold: the oldest turns of more text than that are forgotten as new ones are
            answered; None keeps all.
    """

    def __init__(
        self, system_prompt: str = "", messages: Iterable[Message] = (), *, room_tokens: int | None = None
    ) -> None:
        self._messages: list[Message] = [Message("system", system_prompt)] if system_prompt else []
        self._messages += messages
        self._max_chars = None if room_tokens is None else room_tokens * _MAX_CHARS_A_TOKEN

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def messages(self) -> list[Message]:
        """A copy of the messages."""
        return list(self._messages)

    def with_caller(self, text: str, rag_context: str | None = None) -> list[Message]:
        """Return the messages as they would be with one more of the caller's."""
        return [*self._messages, Message("user", text, rag_context)]

    def add(self, question: Message) -> None:
        """Add what the caller said."""
        self._messages.append(question)

    def answer(self, question: Message, reply: Iterable[Message]) -> None:
        """Put ``reply`` behind a question, in place of what is there; does nothing where the caller spoke since."""
        for index in range(len(self._messages) - 1, -1, -1):
            if self._messages[index] is question:
                self._messages[index + 1 :] = reply
                self._forget_oldest()
                return
            if self._messages[index].role == "user":
                return

    def take_back(self, message: Message) -> None:
        """Remove a message that was refused, so that it does not spoil the prompts to come."""
        self._messages = [m for m in self._messages if m is not message]

    def _forget_oldest(self) -> None:
        """Drop whole turns, as a prompt that is too long leaves them out; never the last one."""
        if self._max_chars is None:
            return
        chars = [_chars(message) for message in self._messages]
        first = sum(message.role == "system" for message in self._messages[:1])
        turns = [index for index, message in enumerate(self._messages) if message.role == "user"]
        left, keep_from = sum(chars), first
        for index in turns[1:]:
            if left <= self._max_chars:
                break
            left -= sum(chars[keep_from:index])
            keep_from = index
        del self._messages[first:keep_from]


class Playback:
    """How much of a reply was heard: by the transport's reports, or estimated from the speaking rate.

    Args:
        chars_per_s: Speaking rate.
        clock: Monotonic seconds.
    """

    def __init__(self, chars_per_s: float, clock: Callable[[], float]) -> None:
        self._chars_per_s = chars_per_s
        self._clock = clock
        self._chunks: list[str] = []
        self._first_sent_s = 0.0
        self._stopped_s: float | None = None
        self._position: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """All that was sent."""
        return "".join(self._chunks)

    def sent(self, text: str) -> None:
        """Note a chunk that was handed to the transport."""
        if not self._chunks:
            self._first_sent_s = self._clock()
        self._chunks.append(text)

    def played(self, index: int, played_ms: int) -> None:
        """Note that chunk ``index`` has been played for ``played_ms``, and all chunks before it in full."""
        self._position = max(self._position or (0, 0), (index, played_ms))

    def stop(self) -> None:
        """Note that the voice has stopped: from now on only reports change what was heard."""
        if self._stopped_s is None:
            self._stopped_s = self._clock()

    def heard(self) -> str:
        """Return the text that was heard by now, cut at a word's end."""
        if self._position is None:
            now_s = self._clock() if self._stopped_s is None else self._stopped_s
            spoken_s = now_s - self._first_sent_s
            return _cut(self.text, spoken_s * self._chars_per_s)
        index, played_ms = self._position
        rest = "".join(self._chunks[index : index + 1])
        return "".join(self._chunks[:index]) + _cut(rest, played_ms / 1e3 * self._chars_per_s)


def _chars(message: Message) -> int:
    calls = sum(len(call.name) + len(str(call.arguments)) for call in message.tool_calls)
    return _CHARS_A_MESSAGE + len(message.content) + len(message.rag_context or "") + calls


def _cut(text: str, chars: float) -> str:
    """Return at most ``chars`` characters, without half a word at the end."""
    most = max(0, int(chars))
    if most >= len(text):
        return text
    return text[:most] if text[most].isspace() else text[:most].rpartition(" ")[0]
