"""The one thread that owns backend and core, and its asyncio face."""

from .call import Call, Messages, Tools
from .engine import Engine
from .state import EngineStats, Health
from .stream import ReplyStream

__all__ = ["Call", "Engine", "EngineStats", "Health", "Messages", "ReplyStream", "Tools"]
