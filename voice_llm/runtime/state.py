"""What an engine says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from ..backend import BackendCounters
from ..engine import BatcherCounters
from ..engine.admission import Forecast

__all__ = ["EngineStats", "Health"]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the engine can serve.

    Attributes:
        healthy: The thread lives and its present step is not stuck.
        detail: Why not, for operators.
        open_calls: Calls open now.
        max_calls: Most open calls.
    """

    healthy: bool
    detail: str
    open_calls: int
    max_calls: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Running totals since the engine was loaded, and what is held now.

    Attributes:
        batcher: What the core has done.
        backend: What the backend has done.
        prefix_bytes: Host memory of saved prefixes.
        parked_bytes: Host memory of parked calls.
        sequences: KV sequences that there are.
        held_sequences: Those that calls hold.
        kv_tokens: Tokens in them.
        decode_error: How far off the cost model is for single-token steps: moving mean of |predicted - real| / real.
        prefill_error: The same for prefills.
        forecast: How it would be with one more call; None where too little was seen to say.
    """

    batcher: BatcherCounters
    backend: BackendCounters
    prefix_bytes: int
    parked_bytes: int
    sequences: int
    held_sequences: int
    kv_tokens: int
    decode_error: float
    prefill_error: float
    forecast: Forecast | None = None
