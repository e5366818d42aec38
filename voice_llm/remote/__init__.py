"""An engine in another process, with the face of ``Engine``.

``RemoteEngine`` needs the extra ``remote``; the faces, and asking the environment whether there is one, do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .environment import connect_from_environment, tls_from_environment
from .face import CallFace, EngineFace, OpeningFace

if TYPE_CHECKING:
    from .call import RemoteCall
    from .engine import RemoteEngine

__all__ = [
    "CallFace",
    "EngineFace",
    "OpeningFace",
    "RemoteCall",
    "RemoteEngine",
    "connect_from_environment",
    "tls_from_environment",
]


def __getattr__(name: str) -> Any:
    """Import what needs gRPC when it is first asked for."""
    if name not in ("RemoteCall", "RemoteEngine"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from . import call, engine
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] not in ("grpc", "google"):
            raise
        raise ImportError(f"{name} needs gRPC: pip install 'pipecat-voice-llm[remote]'") from e
    return call.RemoteCall if name == "RemoteCall" else engine.RemoteEngine
