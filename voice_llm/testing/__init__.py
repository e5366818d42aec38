"""Public fakes: test the engine, or your own pipeline, without weights and in no time."""

from .backend import CONTROL_TOKENS, FakeBackend, FakeSampler, FakeState, echo_reply
from .clock import VirtualClock
from .loop_meter import LoopMeter, Stall
from .virtual_time import VirtualTimeLoop, run_in_virtual_time

__all__ = [
    "CONTROL_TOKENS",
    "FakeBackend",
    "FakeSampler",
    "FakeState",
    "LoopMeter",
    "Stall",
    "VirtualClock",
    "VirtualTimeLoop",
    "echo_reply",
    "run_in_virtual_time",
]
