"""Pure incremental text codecs: what a sampled token's bytes become before a caller hears them.

Each codec is ``decode(x)`` for more input and ``flush()`` for its end, and its joined output is the same however the
input is cut. No I/O, no clock.
"""

from .blocks import BlockSplitter
from .chunker import SentenceChunker
from .pipeline import TextOutput, TextPipeline
from .speech import SpeechFilter
from .stop import StopStrings
from .tool_calls import ParsedCall, ToolCallParser
from .utf8 import Utf8Decoder

__all__ = [
    "BlockSplitter",
    "ParsedCall",
    "SentenceChunker",
    "SpeechFilter",
    "StopStrings",
    "TextOutput",
    "TextPipeline",
    "ToolCallParser",
    "Utf8Decoder",
]
