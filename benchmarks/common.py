"""What the proofs share: results, the machine's description, an engine on the packaged model."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from voice_llm import Engine, Finished, Profile, TextDelta
from voice_llm.backend.llama import LlamaBackend, LlamaModel
from voice_llm.config import EngineConfig
from voice_llm.models import resolve_model

PROFILE = "smollm2_135m_demo"
THREADS = max(1, min(8, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class Proof:
    """One objective: what was asked, what was found.

    Attributes:
        name: Short name.
        objective: In words, with the bound.
        passed: Whether the bound holds.
        figures: What was measured.
        date: When it was measured.
    """

    name: str
    objective: str
    passed: bool
    figures: dict[str, Any]
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


class TalkativeBackend(LlamaBackend):
    """Never ends a turn by itself, so that every reply has its full length."""

    def is_end_of_turn(self, token: int) -> bool:
        """See ``Backend``."""
        return False


def model_path() -> Path:
    """Return the packaged model's file."""
    return resolve_model(Profile.load(PROFILE).model)


def engine_config(**overrides: Any) -> EngineConfig:
    """Return the sizes and choices of these proofs; fixed, so that runs compare."""
    fixed = {
        "threads": THREADS,
        "threads_batch": THREADS,
        "micro_batch_tokens": 512,
        "flash_attention": "off",
        "kv_layout": "split",
        "context_per_call": 1024,
        "admission": "limit",
    }
    return EngineConfig(**{**fixed, **overrides})


@asynccontextmanager
async def running_engine(
    config: EngineConfig, *, backend_type: type[LlamaBackend] = LlamaBackend
) -> AsyncIterator[Engine]:
    """Load the packaged model without the profile's own prompt, and close it in the end."""
    profile = Profile.load(PROFILE).model_copy(update={"system_prompt": "", "engine": config})
    backend = backend_type(LlamaModel(model_path()), config)
    engine = await Engine.start(backend, profile)
    try:
        yield engine
    finally:
        await engine.close()


async def read(stream: Any) -> tuple[str, Finished]:
    """Read a reply to its end; returns its text and its last event."""
    pieces: list[str] = []
    async for event in stream:
        if isinstance(event, TextDelta):
            pieces.append(event.text)
        elif isinstance(event, Finished):
            return "".join(pieces), event
    raise RuntimeError("the reply had no end")


def machine() -> dict[str, Any]:
    """Describe where and with what the figures were made."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        "model": model_path().name,
        "threads": THREADS,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "unset"),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile by linear interpolation."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
