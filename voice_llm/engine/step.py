"""What goes into a step, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..backend.base import BatchEntry
from ..errors import VoiceLLMError
from ..events import GenerateEvent, Prefilled
from .request import Request
from .scheduler import Plan

__all__ = ["CoreEvent", "Failed", "Step"]


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended with an error; the call itself goes on."""

    error: VoiceLLMError


CoreEvent = tuple[Request, GenerateEvent | Prefilled | Failed]
"""Whom it concerns, and what happened."""


@dataclass(slots=True)
class Step:
    """What one step hands from plan to apply."""

    plan: Plan
    entries: list[BatchEntry] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
