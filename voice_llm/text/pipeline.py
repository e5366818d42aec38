"""TextPipeline: one reply's way from token bytes to speakable chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .blocks import BlockSplitter
from .chunker import SentenceChunker
from .speech import SpeechFilter
from .stop import StopStrings
from .utf8 import Utf8Decoder


@dataclass(frozen=True, slots=True)
class TextOutput:
    """What one step of a reply gave.

    Attributes:
        text: New text of the reply; may be empty.
        chunks: Pieces for a voice that are now complete. Joined over a reply they are the joined ``text``.
        thought: New reasoning text; never part of ``text``.
        stopped: Whether a stop string has matched: the reply is over and only ``flush`` is left to call.
    """

    text: str
    chunks: tuple[str, ...] = ()
    thought: str = ""
    stopped: bool = False


_NOTHING = TextOutput("")


class TextPipeline:
    """Token bytes -> whole characters -> stop strings -> thoughts taken out -> speech filter -> chunks.

    Attributes:
        emitted_visible_chars: How many characters other than white space all ``text`` so far has.
    """

    def __init__(
        self, *, stop: Sequence[str] = (), language: str = "en", speech: bool = True, inside_thought: bool = False
    ) -> None:
        """Prepare for one reply.

        Args:
            stop: Strings that end the reply and are no part of it.
            language: Code of the reply's language, for its sentence ends.
            speech: Whether to leave out what a voice cannot speak; False for text that is shown.
            inside_thought: Whether the prompt ends with an opened ``<think>``.

        Raises:
            InvalidRequestError: A stop string is empty.
        """
        self.emitted_visible_chars = 0
        self._utf8 = Utf8Decoder()
        self._stop = StopStrings(stop)
        self._thoughts = BlockSplitter("<think>", "</think>", inside=inside_thought)
        self._speech = SpeechFilter() if speech else None
        self._chunker = SentenceChunker(language)

    def decode(self, data: bytes) -> TextOutput:
        """Take the bytes of one token."""
        text = self._thoughts.decode(self._stop.decode(self._utf8.decode(data)))
        if self._speech is not None:
            text = self._speech.decode(text)
        return self._output(text, self._chunker.decode(text) if text else [])

    def flush(self) -> TextOutput:
        """End the reply: whatever was held back, and the last chunk."""
        text = self._stop.decode(self._utf8.flush()) + self._stop.flush()
        text = self._thoughts.decode(text) + self._thoughts.flush()
        if self._speech is not None:
            text = self._speech.decode(text) + self._speech.flush()
        return self._output(text, self._chunker.decode(text) + self._chunker.flush())

    def _output(self, text: str, chunks: list[str]) -> TextOutput:
        thought = self._thoughts.take_inside()
        stopped = self._stop.matched is not None
        if not (text or chunks or thought or stopped):
            return _NOTHING
        self.emitted_visible_chars += sum(map(len, text.split()))
        return TextOutput(text, tuple(chunks), thought, stopped)
