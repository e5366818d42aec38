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


@dataclass(eq=False, slots=True)
class Exchange:
    """One question of a call.

    Attributes:
        asked: The bare text.
        told: What the model was given for it.
        replied: What it has answered so far.
    """

    asked: str
    told: str
    replied: list[str] = field(default_factory=list)

    @property
    def chars(self) -> int:
        """Its size, but for the reply, which is bounded elsewhere."""
        return len(self.asked) + len(self.told)

    def is_answer(self, text: str) -> bool:
        """Whether a message stands for the reply or, where the caller spoke over it, for its beginning."""
        return _dense("".join(self.replied)).startswith(_dense(text))


@dataclass(eq=False, slots=True)
class _Exchanges:
    latest: deque[Exchange] = field(default_factory=deque)
    chars: int = 0

    def add(self, exchange: Exchange) -> None:
        self.latest.append(exchange)
        self.chars += exchange.chars

    def drop_oldest(self) -> int:
        """Returns how much text it was."""
        chars = self.latest.popleft().chars
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
        exchanges.add(exchange)
        if len(exchanges.latest) > self._max_exchanges:
            exchanges.drop_oldest()
        excess = self.chars - self._max_chars
        for held in list(self._of_call.values()):
            while excess > 0 and len(held.latest) > (held is exchanges):
                excess -= held.drop_oldest()

    def forget(self, call: Call, exchange: Exchange) -> None:
        """Forget a question that was refused."""
        exchanges = self._of_call.get(call)
        if exchanges is not None and exchange in exchanges.latest:
            exchanges.latest.remove(exchange)
            exchanges.chars -= exchange.chars

    def recall(self, call: Call, history: Sequence[Message]) -> list[Message]:
        """Return the history with each question as the call's sequence was given it.

        Both are in the order of the call, and a history may lack the oldest turns: so they are matched from the end.
        A question that was asked more than once is the latest of those that the message after it answers.
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
                found = _latest([p for p in places.get(message.content.strip(), ()) if p < end], known, answer)
                if found is not None:
                    recalled[index], end = Message("user", known[found].told), found
            answer = message.content if message.role == "assistant" else ""
        return recalled


def _latest(places: Sequence[int], known: Sequence[Exchange], answer: str) -> int | None:
    """Return the latest place with that answer, else the latest."""
    answered = (place for place in reversed(places) if known[place].is_answer(answer))
    return next(answered, places[-1] if places else None)


def _dense(text: str) -> str:
    return "".join(text.split())
