"""The engine in virtual time, with the costs of a real one."""

from __future__ import annotations

from .backend import SimulatedBackend
from .clock import StepClock
from .engine import SMOLLM2_ON_TWO_CORES, VirtualEngine, virtual_engine
from .target import Replies, VirtualTarget, recorded_replies, scripted_replies
from .words import WordTokenizer

__all__ = [
    "SMOLLM2_ON_TWO_CORES",
    "Replies",
    "SimulatedBackend",
    "StepClock",
    "VirtualEngine",
    "VirtualTarget",
    "WordTokenizer",
    "recorded_replies",
    "scripted_replies",
    "virtual_engine",
]
