"""voice_llm: the language-model engine for phone calls.

Example:
    >>> async with await Engine.load("smollm2_135m_demo") as engine, engine.open_call() as call:
    ...     async for event in call.generate([{"role": "user", "content": "Hello!"}]):
    ...         print(event)
"""

import logging
import typing

from .config import EngineConfig, Profile, SamplingParams
from .errors import VoiceLLMError
from .events import Finished, FinishReason, Prefilled, SentenceChunk, TextDelta, Thought, Timings, ToolCall, Usage
from .prompt import Tool
from .runtime import Call, Engine, ReplyStream
from .session import CallSession

if typing.TYPE_CHECKING:
    from .remote import RemoteEngine

__all__ = [
    "Call",
    "CallSession",
    "Engine",
    "EngineConfig",
    "FinishReason",
    "Finished",
    "Prefilled",
    "Profile",
    "RemoteEngine",
    "ReplyStream",
    "SamplingParams",
    "SentenceChunk",
    "TextDelta",
    "Thought",
    "Timings",
    "Tool",
    "ToolCall",
    "Usage",
    "VoiceLLMError",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    """Import ``RemoteEngine``, which needs the extra ``remote``, when it is first asked for."""
    if name == "RemoteEngine":
        from .remote import RemoteEngine

        return RemoteEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
