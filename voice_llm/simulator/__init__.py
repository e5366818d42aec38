"""Virtual callers: a load of phone calls against the engine or a server, measured at the caller's edge.

``ConverseTarget`` needs the extra ``remote``; it is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .caller import Caller
from .insurance import make_scripts
from .listening import HeardReply
from .openai_target import OpenAITarget
from .percentiles import Percentiles, percentile
from .results import CallResult, RunResult, TurnResult
from .run import run_calls
from .script import CallerTurn, CallScript
from .targets import ChatMessages, EngineTarget, Target, TargetCall, TargetError

if TYPE_CHECKING:
    from .converse_target import ConverseTarget

__all__ = [
    "CallResult",
    "CallScript",
    "Caller",
    "CallerTurn",
    "ChatMessages",
    "ConverseTarget",
    "EngineTarget",
    "HeardReply",
    "OpenAITarget",
    "Percentiles",
    "RunResult",
    "Target",
    "TargetCall",
    "TargetError",
    "TurnResult",
    "make_scripts",
    "percentile",
    "run_calls",
]


def __getattr__(name: str) -> Any:
    if name != "ConverseTarget":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .converse_target import ConverseTarget
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("grpc", "google"):
            raise
        raise ImportError(f"{name} needs gRPC: pip install 'pipecat-voice-llm[remote]'") from error
    return ConverseTarget
