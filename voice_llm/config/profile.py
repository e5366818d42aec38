"""Profile: one JSON file that says which model answers, how, and on what terms."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import ConfigError, NotFoundError
from .engine import EngineConfig
from .explain import dataclass_from, explain, parse_json_object, unknown
from .language import primary_language
from .sampling import SamplingParams
from .speaking_rate import SPEAKING_RATES, SpeakingRates, speaking_rate_of

__all__ = ["ModelSource", "Profile", "find_profile", "list_profiles", "profile_folder", "profile_schema"]

_PACKAGE = Path(__file__).resolve().parents[1]
_CONFIG = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)
_RAG_PLACEHOLDERS: Final = ("{{rag_context}}", "{{user_prompt}}")
_RAG_PROMPT: Final = "Information for this question:\n{{rag_context}}\n\nQuestion:\n{{user_prompt}}"
_RAG_PROMPT_TURKISH: Final = "Bu soru için bilgiler:\n{{rag_context}}\n\nSoru:\n{{user_prompt}}"


class ModelSource(BaseModel):
    """Where the model file is: exactly one of ``path``, ``package`` with ``file``, and ``repo`` with ``file``."""

    model_config = _CONFIG

    path: str | None = None
    """A GGUF file; ``~`` is the home folder, and a relative path starts at the profile's own folder."""
    package: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """An installed Python package that holds ``file``; it is never imported."""
    repo: str | None = None
    """A Hugging Face repository, ``owner/name``."""
    file: str | None = None
    """Name of the GGUF file in the package or repository."""
    revision: str | None = None
    """Branch, tag or commit of the repository."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9A-Fa-f]{64}$")
    """What the SHA-256 of the repository's file must be."""

    @model_validator(mode="after")
    def _check_one_source(self) -> Self:
        if sum(value is not None for value in (self.path, self.package, self.repo)) != 1:
            raise ConfigError("give exactly one of path, package and repo")
        if (self.path is None) != (self.file is not None):
            raise ConfigError("file goes with package or repo, and each of them needs it", param="file")
        if self.repo is None and (self.revision or self.sha256):
            raise ConfigError("revision and sha256 go with repo only")
        return self


class Profile(BaseModel):
    """Everything that a deployment chooses; frozen and validated, with every default filled in."""

    model_config = _CONFIG

    schema_location: str | None = Field(default=None, alias="$schema", repr=False, exclude=True)
    """Where editors find the schema of this file."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """What the profile is called by ``--profile`` and over the wire."""
    description: str = ""
    """One line for people."""
    model: ModelSource
    """Where the model file is."""
    system_prompt: str = ""
    """What every call begins with."""
    language: str = Field(default="en", max_length=35, pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{1,8})*$")
    """BCP 47 code of the language that is spoken, where a call does not say; it decides where sentences end."""
    rag_prompt: str | None = None
    """User turn of a ``GenerateStream`` request with RAG, its ``{{rag_context}}`` and ``{{user_prompt}}`` filled in."""
    chat_template: str | None = None
    """Jinja template used instead of the model file's own."""
    sampling: Annotated[SamplingParams, BeforeValidator(partial(dataclass_from, SamplingParams))] = SamplingParams()
    """How replies are drawn, where a request does not say."""
    engine: Annotated[EngineConfig, BeforeValidator(partial(dataclass_from, EngineConfig))] = EngineConfig()
    """How the model is loaded, where a flag or a variable does not say."""
    first_chunk_target_ms: float = Field(default=800.0, gt=0, le=60_000, allow_inf_nan=False)
    """When the first words of a reply should be ready to be spoken, in milliseconds after the caller's turn ended."""
    speaking_rate_chars_per_s: SpeakingRates = SPEAKING_RATES
    """Characters that the voice speaks in a second: a number, or one for each language and a ``default`` for others."""

    @field_validator("rag_prompt")
    @classmethod
    def _check_rag_prompt(cls, rag_prompt: str | None) -> str | None:
        for placeholder in _RAG_PLACEHOLDERS:
            if rag_prompt is not None and placeholder not in rag_prompt:
                raise ConfigError(f"must hold {' and '.join(_RAG_PLACEHOLDERS)}; {placeholder} is missing")
        return rag_prompt

    @classmethod
    def load(cls, name_or_path: str | Path) -> Self:
        """Read one of the profiles that come with the package, by name, or any profile file, by path.

        A string is a path if it ends in ``.json`` or contains a slash.

        Raises:
            NotFoundError: There is no such profile or file; the message lists those that there are.
            ConfigError: The file is wrong; the message names the file, the key and what is allowed.
        """
        path = find_profile(name_or_path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        try:
            profile = cls.model_validate_json(json.dumps(parse_json_object(text, source=str(path))))
        except ValidationError as error:
            raise explain(error, cls, source=str(path)) from None
        return profile._anchored(path.resolve().parent)

    @property
    def rag_template(self) -> str:
        """``rag_prompt``, or where that is None one in the profile's language: Turkish, else English."""
        default = _RAG_PROMPT_TURKISH if primary_language(self.language) == "tr" else _RAG_PROMPT
        return default if self.rag_prompt is None else self.rag_prompt

    def speaking_rate_of(self, language: str) -> float:
        """Return how many characters of a language, given by its code, the voice speaks in a second."""
        return speaking_rate_of(language, self.speaking_rate_chars_per_s)

    def _anchored(self, folder: Path) -> Self:
        if self.model.path is None:
            return self
        path = folder / Path(self.model.path).expanduser()
        return self.model_copy(update={"model": self.model.model_copy(update={"path": str(path)})})


def list_profiles() -> list[str]:
    """Return the names of the profiles that come with the package."""
    return sorted(path.stem for path in profile_folder().glob("*.json") if not path.stem.endswith(".schema"))


def profile_folder(package: Path = _PACKAGE) -> Path:
    """Return where the profiles are: inside an installed wheel, else beside the package in its repository."""
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parent / "profiles"


def profile_schema() -> dict[str, Any]:
    """Return the JSON schema of a profile file, for editors; ``profiles/profile.schema.json`` holds it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Profile.model_json_schema()}


def find_profile(name_or_path: str | Path) -> Path:
    """Return the file of a profile, given by name or path.

    Raises:
        NotFoundError: There is none; the message lists those that there are.
    """
    if isinstance(name_or_path, Path) or name_or_path.endswith(".json") or "/" in name_or_path or "\\" in name_or_path:
        path = Path(name_or_path).expanduser()
        if not path.exists():
            raise NotFoundError(f"there is no profile file {path}")
        return path
    if name_or_path not in list_profiles():
        raise NotFoundError(unknown("profile", name_or_path, list_profiles()))
    return profile_folder() / f"{name_or_path}.json"
