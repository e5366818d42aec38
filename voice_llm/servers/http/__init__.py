"""The OpenAI-compatible HTTP interface."""

from .server import HttpServer

__all__ = ["HttpServer"]
