"""From a profile to a loaded backend: find the file, check it, settle what is "auto", load it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ..backend import Backend
from ..config import EngineConfig, Profile
from ..models import resolve_model

__all__ = ["load_backend"]

logger = logging.getLogger(__name__)


def load_backend(
    profile: Profile,
    config: EngineConfig,
    model: str | Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[Backend, EngineConfig]:
    """Load the profile's model with llama.cpp; blocks for as long as that takes.

    Returns:
        The backend, and the configuration with every "auto" settled.

    Raises:
        ModelFileError: The file is missing, truncated or not GGUF.
        BackendError: It cannot be loaded, or its context does not fit into memory.
    """
    path = resolve_model(profile.model, override=model, progress=logger.info)
    # The native library is loaded here and not at import, so that everything else works without it.
    from ..backend.llama import LlamaBackend, LlamaModel
    from ..backend.llama.tuning import settle

    weights = LlamaModel(path, gpu_layers=config.gpu_layers, use_mmap=config.use_mmap, progress=progress)
    try:
        config = settle(weights, config)
        return LlamaBackend(weights, config), config
    except BaseException:
        weights.close()
        raise
