"""What a deployment chooses: profiles, the environment, sampling and engine parameters. Validated once."""

from __future__ import annotations

from .engine import EngineConfig
from .profile import ModelSource, Profile, list_profiles
from .sampling import SamplingParams
from .server import ServerConfig, TlsFiles
from .settings import Settings
from .structure import StructuralTag, StructuralTags

__all__ = [
    "EngineConfig",
    "ModelSource",
    "Profile",
    "SamplingParams",
    "ServerConfig",
    "Settings",
    "StructuralTag",
    "StructuralTags",
    "TlsFiles",
    "list_profiles",
]
