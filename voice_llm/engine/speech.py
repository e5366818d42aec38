"""Speech: what the caller still has to hear of a reply."""

from __future__ import annotations

from typing import Final

__all__ = ["Speech"]

# Between the text and the sound of it: the synthesizer and the way to the caller.
_VOICE_DELAY_S: Final = 0.3


class Speech:
    """How long the caller's ear is provided for. Holds no clock: times are arguments, in seconds.

    Sentence chunks are taken to be played at speaking rate, one after the other, from the moment each was complete;
    reports of the transport correct that.

    Args:
        chars_per_s: How fast the voice speaks.
        target_s: When the first chunk is due, after the turn's arrival.
    """

    __slots__ = ("_chars_per_s", "_chunks", "_ends_s", "target_s")

    def __init__(self, *, chars_per_s: float, target_s: float) -> None:
        self.target_s = target_s
        self._chars_per_s = chars_per_s
        self._chunks: list[int] = []
        self._ends_s = 0.0

    @property
    def begun(self) -> bool:
        """Whether the caller hears something already."""
        return bool(self._chunks)

    @property
    def total_s(self) -> float:
        """How long all that was handed on takes to play."""
        return sum(self._chunks) / self._chars_per_s

    def sent(self, text: str, now_s: float) -> None:
        """Note a chunk that was handed on."""
        starts_s = max(self._ends_s, now_s) if self._chunks else now_s
        self._chunks.append(len(text))
        self._ends_s = starts_s + len(text) / self._chars_per_s

    def played(self, index: int, played_ms: float, now_s: float) -> None:
        """Note that chunk ``index`` has been played for ``played_ms`` by now, and all chunks before it in full."""
        if 0 <= index < len(self._chunks):
            rest_s = sum(self._chunks[index:]) / self._chars_per_s - played_ms / 1e3
            self._ends_s = now_s + max(0.0, rest_s)

    def slack_s(self, now_s: float) -> float:
        """Return how long the caller can go without another chunk; negative where the voice has fallen silent."""
        return self._ends_s - _VOICE_DELAY_S - now_s
