"""Options that several commands share, and how they become a loaded engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ..config import Profile, Settings
from ..config.engine import AdmissionRule, KVLayout
from ..errors import ConfigError
from ..runtime import Engine

__all__ = [
    "AdmissionOption",
    "CallsOption",
    "ContextOption",
    "EngineOptions",
    "GpuLayersOption",
    "JsonOption",
    "KvOption",
    "ModelOption",
    "ProfileOption",
    "ThreadsOption",
    "text_or_file",
]

_MODEL = "Model and machine"
DEFAULT_PROFILE = "smollm2_135m_demo"

ProfileOption = Annotated[
    str,
    typer.Option(help="A profile's name, or the path of a profile file.", rich_help_panel=_MODEL, metavar="NAME|PATH"),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(help="A GGUF file instead of the profile's model.", rich_help_panel=_MODEL, metavar="PATH"),
]
CallsOption = Annotated[
    int | None, typer.Option(help="Calls side by side in the KV cache.", rich_help_panel=_MODEL, metavar="N")
]
ContextOption = Annotated[
    int | None,
    typer.Option(help="Tokens of prompt and reply that a call can hold.", rich_help_panel=_MODEL, metavar="N"),
]
ThreadsOption = Annotated[
    str | None, typer.Option(help="CPU threads, or auto to measure once.", rich_help_panel=_MODEL, metavar="N|auto")
]
GpuLayersOption = Annotated[
    int | None, typer.Option(help="Layers on the GPU; -1 for all.", rich_help_panel=_MODEL, metavar="N")
]
KvOption = Annotated[
    KVLayout | None,
    typer.Option(help="KV cache split by call or unified; auto measures once.", rich_help_panel=_MODEL),
]
AdmissionOption = Annotated[
    AdmissionRule | None,
    typer.Option(
        help="Refuse calls that would make first words late for everyone (forecast, the default), or by --calls only.",
        rich_help_panel=_MODEL,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of text for people.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What the command line says of the engine; None where it says nothing."""

    profile: str = DEFAULT_PROFILE
    model: Path | None = None
    calls: int | None = None
    context_per_call: int | None = None
    threads: str | None = None
    gpu_layers: int | None = None
    kv: KVLayout | None = None
    admission: AdmissionRule | None = None

    @asynccontextmanager
    async def engine(self, *, quiet: bool) -> AsyncIterator[Engine]:
        """Load the engine, showing how far that is, and close it in the end.

        The order is: defaults < profile < environment < flags.
        """
        profile = self.settled_profile()
        with Progress(
            TextColumn("[progress.description]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=quiet,
        ) as bar:
            task = bar.add_task(f"loading {self.profile}", total=1.0)

            def on_progress(share: float) -> None:
                bar.update(task, completed=share)
                if share >= 1:
                    bar.update(task, description="warming up", total=None)

            engine = await self.load(profile, progress=on_progress)
        try:
            yield engine
        finally:
            await asyncio.shield(engine.close())

    def settled_profile(self) -> Profile:
        """Return the profile with the environment and these options over it.

        Raises:
            NotFoundError: There is no such profile.
            ConfigError: A profile's, variable's or option's value is not allowed.
        """
        profile = Settings().apply(Profile.load(self.profile))
        return profile.model_copy(update={"engine": profile.engine.replace(**self.engine_fields())})

    async def load(self, profile: Profile, **options: Any) -> Engine:
        """Load the engine of a settled profile; ``options`` are further ones of ``Engine.load``."""
        return await Engine.load(profile, model=self.model, **options)

    def engine_fields(self) -> dict[str, Any]:
        """Return these options as fields of ``EngineConfig``; None where the command line says nothing.

        Raises:
            ConfigError: A value is not allowed.
        """
        return {
            "sequences": self.calls,
            "context_per_call": self.context_per_call,
            "threads": _threads(self.threads),
            "threads_batch": _threads(self.threads),
            "gpu_layers": self.gpu_layers,
            "kv_layout": self.kv,
            "admission": self.admission,
        }


def text_or_file(value: str | None) -> str | None:
    """Return an option's text; ``@PATH`` reads a file.

    Raises:
        ConfigError: The file cannot be read.
    """
    if value is None or not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{value[1:]} cannot be read: {e}") from e


def _threads(value: str | None) -> int | Literal["auto"] | None:
    if value is None:
        return None
    if value == "auto":
        return "auto"
    try:
        return int(value)
    except ValueError:
        raise ConfigError(f"--threads is {value!r}; allowed is a whole number or auto", param="threads") from None
