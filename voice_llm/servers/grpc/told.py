"""ToldTurns: what a call's sequence was really given for the bare texts that a gateway's history repeats."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from ...prompt import Message
from ...runtime import Call

__all__ = ["Exchange", "ToldTurns"]

# More than a history may hold by default: one that outgrew it would be computed anew from its first message.
_MAX_EXCHANGES: Final = 1024
_MAX_CHARS: Final = 32 * 1024 * 1024
# A history of equal questions must not take longer to look through than any other.
_MAX_TRIES: Final = 8
_REPLY_CHARS: Final = 1024
_ANSWER_CHARS: Final = 4 * _REPLY_CHARS


@dataclass(eq=False, slots=True)
class Exchange:
    """One question of a call.

    Attributes:
        asked: The bare text.
        told: What the model was given for it.
        replied: The beginning of what it has answered so far, without white space.
        counted: How much of it its call's sum of text holds.
    """

    asked: str
    told: str
    replied: str = ""
    counted: int = 0

    @property
    def chars(self) -> int:
        """Its size."""
        return len(self.asked) + len(self.told) + len(self.replied)

    def say(self, text: str) -> None:
        """Note more of the reply; the beginning is enough to know it by."""
        if len(self.replied) < _REPLY_CHARS:
            self.replied = (self.replied + _dense(text))[:_REPLY_CHARS]


@dataclass(eq=False, slots=True)
class _Exchanges:
    latest: deque[Exchange] = field(default_factory=deque)
    chars: int = 0

    def count(self, exchange: Exchange) -> None:
        self.chars += exchange.chars - exchange.counted
        exchange.counted = exchange.chars

    def drop_oldest(self) -> int:
        """Returns how much text it was."""
        chars = self.latest.popleft().counted
        self.chars -= chars
        return chars


class ToldTurns:
    """Remembers the latest questions of each call for as long as the call lives, within a bound for all of them.

    Args:
        max_exchanges: Most questions remembered of a call.
        max_chars: Most text remembered of all calls; the call that has been quiet for longest is forgotten first.
    """

    def __init__(self, *, max_exchanges: int = _MAX_EXCHANGES, max_chars: int = _MAX_CHARS) -> None:
        self._max_exchanges = max_exchanges
        self._max_chars = max_chars
        # In the order of their latest use. A call that is dropped takes what was said in it along.
        self._of_call: WeakKeyDictionary[Call, _Exchanges] = WeakKeyDictionary()

    @property
    def chars(self) -> int:
        """How much text is remembered."""
        return sum(exchanges.chars for exchanges in self._of_call.values())

    def note(self, call: Call, exchange: Exchange) -> None:
        """Remember a question that the call's sequence is about to be given."""
        exchanges = self._of_call.pop(call, None) or _Exchanges()
        self._of_call[call] = exchanges
        exchanges.latest.append(exchange)
        exchanges.count(exchange)
        if len(exchanges.latest) > self._max_exchanges:
            exchanges.drop_oldest()
        self._make_room(exchanges)

    def count(self, call: Call, exchange: Exchange) -> None:
        """Count what was replied to a question, once the reply has ended."""
        exchanges = self._of_call.get(call)
        if exchanges is not None and exchange in exchanges.latest:
            exchanges.count(exchange)
            self._make_room(exchanges)

    def _make_room(self, latest: _Exchanges) -> None:
        excess = self.chars - self._max_chars
        for held in list(self._of_call.values()):
            while excess > 0 and len(held.latest) > (held is latest):
                excess -= held.drop_oldest()

    def forget(self, call: Call, exchange: Exchange) -> None:
        """Forget a question that was refused."""
        exchanges = self._of_call.get(call)
        if exchanges is not None and exchange in exchanges.latest:
            exchanges.latest.remove(exchange)
            exchanges.chars -= exchange.counted

    def recall(self, call: Call, history: Sequence[Message]) -> list[Message]:
        """Return the history with each question as the call's sequence was given it.

        Both are in the order of the call, and a history may lack the oldest turns: so they are matched from the end.
        A question that was asked more than once is, of its latest few, the latest that the message after it answers:
        the whole reply or, where the caller spoke over it, its beginning.
        """
        recalled = list(history)
        exchanges = self._of_call.get(call)
        known = list(exchanges.latest) if exchanges is not None else []
        places: defaultdict[str, list[int]] = defaultdict(list)
        for place, exchange in enumerate(known):
            places[exchange.asked].append(place)
        end, answer = len(known), ""
        for index in reversed(range(len(recalled))):
            message = recalled[index]
            if message.role == "user":
                found = _latest(_before(end, places[message.content.strip()]), known, answer)
                if found is not None:
                    recalled[index], end = Message("user", known[found].told), found
            answer = message.content if message.role == "assistant" else ""
        return recalled


def _before(end: int, places: list[int]) -> list[int]:
    """Take the places from ``end`` on out, for good: what is looked for next lies before it, too."""
    while places and places[-1] >= end:
        places.pop()
    return places


def _latest(places: Sequence[int], known: Sequence[Exchange], answer: str) -> int | None:
    """Return the latest place with that answer, else the latest."""
    if len(places) < 2:
        return places[0] if places else None
    begins = _dense(answer[:_ANSWER_CHARS])[:_REPLY_CHARS]
    answered = (place for place in reversed(places[-_MAX_TRIES:]) if known[place].replied.startswith(begins))
    return next(answered, places[-1])


def _dense(text: str) -> str:
    return "".join(text.split())
