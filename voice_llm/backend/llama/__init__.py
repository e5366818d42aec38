"""The llama.cpp backend. Importing this package loads the native library; nothing else does."""

from .context import LlamaBackend, LlamaState
from .model import LlamaModel

__all__ = ["LlamaBackend", "LlamaModel", "LlamaState"]
