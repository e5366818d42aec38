"""BatcherCounters: what the core has done since it was started, and where the time went."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields
from enum import StrEnum

__all__ = ["BatcherCounters", "PromptKind", "Work"]


class PromptKind(StrEnum):
    """Whose prompt a chunk belongs to."""

    OPENING = "opening"
    """A call's first one, whoever asked for it."""
    TURN = "turn"
    """A later turn's."""
    HINT = "hint"
    """A later early prefill's."""


@dataclass(slots=True)
class Work:
    """Work of one kind.

    Attributes:
        steps: Steps that had a part in it.
        tokens: Tokens decoded.
        ms: Time in the backend; of a step of several kinds, each has its tokens' share.
    """

    steps: int = 0
    tokens: int = 0
    ms: float = 0.0

    def add(self, tokens: int, ms: float) -> None:
        """Note one step."""
        self.steps += 1
        self.tokens += tokens
        self.ms += ms

    def since(self, before: Work) -> Work:
        """Return what was added after ``before``."""
        return Work(self.steps - before.steps, self.tokens - before.tokens, self.ms - before.ms)


@dataclass(slots=True)
class BatcherCounters:
    """Running totals since start; times in milliseconds.

    Attributes:
        decode_steps: Steps of single tokens.
        decode_rows: Single tokens in them.
        decode_micro_batches: Micro-batches that they were made of.
        decode_ms: Time of them in the backend.
        decode_by_rows: The same by the number of rows of a step.
        prefill_steps: Steps of prompts.
        prefill_tokens: Prompt tokens in them.
        prefill_ms: Time of them in the backend.
        prompts: The same by whose prompt it was.
        sample_ms: From the end of a decode until its tokens are drawn and turned into events, and what is worth keeping
            of a prompt is saved.
        copies_ms: Beginning requests: restoring, parking and moving KV.
        step_ms: Whole steps; what none of the above accounts for is planning.
        longest_step_ms: The longest of them.
        failed_steps: Decodes that the backend refused or failed.
        rehomed: Sequences moved beside the talkers.
        restored_tokens: Prompt tokens that came from a saved state.
        parked: Times that a call was moved to host memory.
        refused_by_limit: Calls, turns of soft calls and one-shots that found no place.
        refused_by_forecast: Calls with which everyone's targets would not have held.
    """

    decode_steps: int = 0
    decode_rows: int = 0
    decode_micro_batches: int = 0
    decode_ms: float = 0.0
    decode_by_rows: dict[int, Work] = field(default_factory=dict)
    prefill_steps: int = 0
    prefill_tokens: int = 0
    prefill_ms: float = 0.0
    prompts: dict[PromptKind, Work] = field(default_factory=lambda: {kind: Work() for kind in PromptKind})
    sample_ms: float = 0.0
    copies_ms: float = 0.0
    step_ms: float = 0.0
    longest_step_ms: float = 0.0
    failed_steps: int = 0
    rehomed: int = 0
    restored_tokens: int = 0
    parked: int = 0
    refused_by_limit: int = 0
    refused_by_forecast: int = 0

    @property
    def planning_ms(self) -> float:
        """What steps took beside decoding, sampling and copies: planning, filling batches, bookkeeping."""
        return max(0.0, self.step_ms - self.decode_ms - self.prefill_ms - self.sample_ms - self.copies_ms)

    def __copy__(self) -> BatcherCounters:
        """Return a snapshot that later steps do not change."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("decode_by_rows", "prompts"):
            values[name] = {key: copy.copy(work) for key, work in values[name].items()}
        return BatcherCounters(**values)
