"""The engine in virtual time, with the costs of a real one."""

from __future__ import annotations

from .backend import SimulatedBackend
from .clock import StepClock
from .engine import VirtualEngine
from .target import Replies, VirtualTarget, recorded_replies, scripted_replies
from .words import WordTokenizer

__all__ = [
    "Replies",
    "SimulatedBackend",
    "StepClock",
    "VirtualEngine",
    "VirtualTarget",
    "WordTokenizer",
    "recorded_replies",
    "scripted_replies",
]
