"""What a deployment chooses: profiles, the environment, sampling and engine parameters. Validated once."""

from __future__ import annotations

from .engine import EngineConfig
from .profile import ModelSource, Profile, list_profiles
from .sampling import SamplingParams
from .settings import Settings
from .structure import StructuralTag, StructuralTags

__all__ = [
    "EngineConfig",
    "ModelSource",
    "Profile",
    "SamplingParams",
    "Settings",
    "StructuralTag",
    "StructuralTags",
    "list_profiles",
]
