"""BatcherCounters: what the core has done since it was started."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BatcherCounters"]


@dataclass(slots=True)
class BatcherCounters:
    """Running totals since start; times in milliseconds."""

    decode_steps: int = 0
    decode_rows: int = 0
    decode_micro_batches: int = 0
    decode_ms: float = 0.0
    prefill_steps: int = 0
    prefill_tokens: int = 0
    prefill_ms: float = 0.0
    sample_ms: float = 0.0
    step_ms: float = 0.0
    longest_step_ms: float = 0.0
    failed_steps: int = 0
    rehomed: int = 0
    restored_tokens: int = 0
    parked: int = 0
