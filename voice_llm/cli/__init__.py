"""The command ``voice-llm``."""

from .app import main

__all__ = ["main"]
