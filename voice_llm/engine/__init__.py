"""The sans-I/O core: calls, pool, scheduler, cost model and the step. No clock, thread, event loop or native code."""

from .batcher import DynamicBatcher
from .cost import CostModel, DecodeShape
from .counters import BatcherCounters
from .pool import ContextPool, KVSequence
from .prefix import IsolationKey, PrefixStore
from .request import LiveCall, Request, RequestKind, RequestState, TurnWork
from .scheduler import Plan, PrefillChunk, Scheduler
from .speech import Speech
from .step import CoreEvent, Failed

__all__ = [
    "BatcherCounters",
    "ContextPool",
    "CoreEvent",
    "CostModel",
    "DecodeShape",
    "DynamicBatcher",
    "Failed",
    "IsolationKey",
    "KVSequence",
    "LiveCall",
    "Plan",
    "PrefillChunk",
    "PrefixStore",
    "Request",
    "RequestKind",
    "RequestState",
    "Scheduler",
    "Speech",
    "TurnWork",
]
