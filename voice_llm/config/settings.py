"""Settings: what the environment and a ``.env`` file say, over what the profile says."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ..errors import ConfigError
from .engine import EngineConfig
from .explain import findings
from .profile import ModelSource, Profile

__all__ = ["ENV_PREFIX", "LogLevel", "Settings"]

ENV_PREFIX: Final = "LLM_LLAMA_SERVICE_"
LogLevel = Literal["debug", "info", "warning", "error"]

# A variable's name -> the engine's field: the names are those of the service that this one replaces.
_ENGINE_FIELDS: Final = {
    "threads": "threads",
    "gpu_layers": "gpu_layers",
    "context_size": "context_per_call",
    "max_batch_size": "sequences",
}


class Settings(BaseSettings):
    """Values of ``LLM_LLAMA_SERVICE_*`` variables; None where the environment says nothing.

    The environment goes before ``.env`` in the working directory. An empty variable says nothing.

    Raises:
        ConfigError: A variable has a value that is not allowed; the message names all of them.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    model_path: str | None = None
    """A GGUF file, used instead of the profile's model."""
    threads: int | Literal["auto"] | None = None
    """CPU threads of a single-token step."""
    gpu_layers: int | None = None
    """Layers held by an accelerator; -1 holds all."""
    context_size: int | None = None
    """Tokens of prompt and reply that one call can hold."""
    max_batch_size: int | None = None
    """Calls held side by side."""
    log_level: LogLevel = "warning"
    """Least severe level that is logged."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            found = [(ENV_PREFIX + path.partition(".")[0].upper(), text) for path, text in findings(error, type(self))]
            raise ConfigError("\n".join(f"{name}: {text}" for name, text in found), param=found[0][0]) from None

    @field_validator(*_ENGINE_FIELDS, mode="before")
    @classmethod
    def _check_engine_value(cls, value: object, info: ValidationInfo) -> object:
        if value is None:
            return None
        value = _number(value) if isinstance(value, str) else value
        EngineConfig().replace(**{_ENGINE_FIELDS[info.field_name or ""]: value})
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    def apply(self, profile: Profile) -> Profile:
        """Return the profile with these settings over it.

        Raises:
            ConfigError: A setting contradicts the profile's own.
        """
        overrides = {field: getattr(self, name) for name, field in _ENGINE_FIELDS.items()}
        update: dict[str, object] = {"engine": profile.engine.replace(**overrides)}
        if self.model_path is not None:
            update["model"] = ModelSource(path=self.model_path)
        return profile.model_copy(update=update)


def _number(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text.strip().lower()
