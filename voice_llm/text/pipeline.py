"""TextPipeline: one reply's way from token bytes to speakable chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .blocks import BlockSplitter
from .chunker import SentenceChunker
from .speech import SpeechFilter
from .stop import StopStrings
from .tool_calls import ParsedCall, ToolCallParser
from .utf8 import Utf8Decoder


@dataclass(frozen=True, slots=True)
class TextOutput:
    """What one step of a reply gave.

    Attributes:
        text: New text of the reply; may be empty.
        chunks: Pieces for a voice that are now complete. Joined over a reply they are the joined ``text``.
        thought: New reasoning text; never part of ``text``.
        stopped: Whether a stop string has matched: the reply is over and only ``flush`` is left to call.
        call_begun: Set once, where the first tool call begins and the words end: what of the call is there already.
    """

    text: str
    chunks: tuple[str, ...] = ()
    thought: str = ""
    stopped: bool = False
    call_begun: str | None = None


_NOTHING = TextOutput("")


class TextPipeline:
    """Token bytes -> characters -> stop strings -> thoughts and tool calls taken out -> speech filter -> chunks.

    Attributes:
        emitted_visible_chars: How many characters other than white space all ``text`` so far has.
    """

    def __init__(
        self,
        *,
        stop: Sequence[str] = (),
        language: str = "en",
        speech: bool = True,
        first_clause: bool = True,
        inside_thought: bool = False,
        tool_calls: ToolCallParser | None = None,
    ) -> None:
        """Prepare for one reply.

        Args:
            stop: Strings that end the reply and are no part of it.
            language: Code of the reply's language, for its sentence ends.
            speech: Whether to leave out what a voice cannot speak; False for text that is shown.
            first_clause: Whether the first chunk may end at a clause.
            inside_thought: Whether the prompt ends with an opened ``<think>``.
            tool_calls: Looks for calls, where the reply may hold some.

        Raises:
            InvalidRequestError: A stop string is empty.
        """
        self.emitted_visible_chars = 0
        self._utf8 = Utf8Decoder()
        self._stop = StopStrings(stop)
        self._thoughts = BlockSplitter("<think>", "</think>", inside=inside_thought)
        self._tool_calls = tool_calls
        self._speech = SpeechFilter() if speech else None
        self._chunker = (
            SentenceChunker(language) if first_clause else SentenceChunker(language, first_clause_min_chars=None)
        )

    @property
    def tool_calls(self) -> tuple[ParsedCall, ...]:
        """The calls of the reply so far; none where it ends inside one."""
        return self._tool_calls.calls if self._tool_calls else ()

    def decode(self, data: bytes) -> TextOutput:
        """Take the bytes of one token."""
        return self._filter(self._thoughts.decode(self._stop.decode(self._utf8.decode(data))))

    def flush(self) -> TextOutput:
        """End the reply: whatever was held back, and the last chunk."""
        text = self._stop.decode(self._utf8.flush()) + self._stop.flush()
        return self._filter(self._thoughts.decode(text) + self._thoughts.flush(), final=True)

    def _filter(self, text: str, *, final: bool = False) -> TextOutput:
        call_begun: str | None = None
        if self._tool_calls is not None and (text or final):
            had_begun = self._tool_calls.begun
            text = self._tool_calls.decode(text)
            if self._tool_calls.begun and not had_begun:
                call_begun = self._tool_calls.begun_text
            elif final:
                text += self._tool_calls.flush()
        final = final or call_begun is not None
        if self._speech is not None:
            text = self._speech.decode(text)
            text += self._speech.flush() if final else ""
        chunks = self._chunker.decode(text) if text else []
        if final:
            chunks += self._chunker.flush()
        thought = self._thoughts.take_inside()
        stopped = self._stop.matched is not None
        if not (text or chunks or thought or stopped) and call_begun is None:
            return _NOTHING
        self.emitted_visible_chars += sum(map(len, text.split()))
        return TextOutput(text, tuple(chunks), thought, stopped, call_begun)
