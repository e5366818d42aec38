"""How errors of the engine are reported to a pipeline."""

from __future__ import annotations

from pipecat.utils.errors import ErrorCategory

from ..errors import AtCapacityError, EngineDeadError, EngineError, LoadingError, VoiceLLMError

__all__ = ["category_of", "is_permanent"]


def category_of(error: Exception) -> ErrorCategory:
    """Return Pipecat's category; only those that pass by themselves, so that one bad turn never ends a service."""
    if isinstance(error, AtCapacityError):
        return ErrorCategory.RATE_LIMIT
    if isinstance(error, (EngineError, LoadingError)):
        return ErrorCategory.SERVER
    return ErrorCategory.APPLICATION if isinstance(error, VoiceLLMError) else ErrorCategory.UNKNOWN


def is_permanent(error: Exception) -> bool:
    """Whether no later turn can succeed either."""
    return isinstance(error, EngineDeadError)
