"""Virtual callers: a load of phone calls against the engine or a server, measured at the caller's edge."""

from .caller import Caller
from .insurance import make_scripts
from .listening import HeardReply
from .openai_target import OpenAITarget
from .percentiles import Percentiles, percentile
from .results import CallResult, RunResult, TurnResult
from .run import run_calls
from .script import CallerTurn, CallScript
from .targets import ChatMessages, EngineTarget, Target, TargetCall, TargetError

__all__ = [
    "CallResult",
    "CallScript",
    "Caller",
    "CallerTurn",
    "ChatMessages",
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
