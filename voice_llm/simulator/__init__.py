"""Virtual callers: a load of phone calls against the engine or a server, measured at the caller's edge.

``Simulation`` lets the callers of scenarios call a target and holds the replies against what was expected;
``run_calls`` and ``place_calls`` do it with scripts of one's own. ``simulator.report`` and ``simulator.virtual`` have
the reports and the engine in virtual time.

``ConverseTarget`` needs the extra ``remote``; it is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arrivals import Arrivals, parse_arrivals
from .caller import Caller
from .insurance import make_scripts
from .judged import JudgedRun, JudgedTurn, judge_run
from .listening import HeardReply
from .objective import check_objective, parse_objective
from .openai_target import OpenAITarget
from .percentiles import Percentiles, percentile
from .results import CallResult, RunResult, TurnResult
from .run import Watcher, place_calls, run_calls
from .scenario import Scenario, find_scenarios, list_scenarios
from .script import CallerTurn, CallScript, Moment, ScriptedReply
from .simulation import Simulation
from .targets import CallHolder, ChatMessages, EngineTarget, Target, TargetCall, TargetError
from .websocket_target import WebSocketTarget

if TYPE_CHECKING:
    from .converse_target import ConverseTarget

__all__ = [
    "Arrivals",
    "CallHolder",
    "CallResult",
    "CallScript",
    "Caller",
    "CallerTurn",
    "ChatMessages",
    "ConverseTarget",
    "EngineTarget",
    "HeardReply",
    "JudgedRun",
    "JudgedTurn",
    "Moment",
    "OpenAITarget",
    "Percentiles",
    "RunResult",
    "Scenario",
    "ScriptedReply",
    "Simulation",
    "Target",
    "TargetCall",
    "TargetError",
    "TurnResult",
    "Watcher",
    "WebSocketTarget",
    "check_objective",
    "find_scenarios",
    "judge_run",
    "list_scenarios",
    "make_scripts",
    "parse_arrivals",
    "parse_objective",
    "percentile",
    "place_calls",
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
