"""Where a model file comes from: a path, an installed package, or the Hugging Face hub."""

from __future__ import annotations

from .gguf_file import GGUFHeader, check_gguf
from .resolve import resolve_model

__all__ = ["GGUFHeader", "check_gguf", "resolve_model"]
