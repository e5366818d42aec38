"""Public fakes: test the engine, or your own pipeline, without weights and in no time."""

from .backend import CONTROL_TOKENS, FakeBackend, FakeSampler, FakeState, echo_reply
from .clock import VirtualClock

__all__ = ["CONTROL_TOKENS", "FakeBackend", "FakeSampler", "FakeState", "VirtualClock", "echo_reply"]
