"""Overview: each setting, its value, and who said so. Keys stay unsaid."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .explain import parse_json_object
from .profile import ModelSource, Profile, find_profile
from .server import ServerConfig, TlsFiles
from .settings import Settings
from .sources import variable_of
from .variables import ENGINE_FIELDS, SAMPLING_FIELDS, SERVER_FIELDS

__all__ = ["Overview", "Setting"]

_MASK: Final = "****"
_MODEL_SETTINGS: Final = ("model_path", "model_filename", "model_id", "model_dir")
_PROFILE_SETTINGS: Final = {"default_system_prompt": "system_prompt", "default_rag_prompt": "rag_prompt"}
_SERVER_SETTINGS: Final = {
    **SERVER_FIELDS,
    "api_keys": "api_keys",
    "api_keys_file": "api_keys",
    "clients_file": "clients",
    "tls_ca": "tls.ca",
    "cert_path": "tls.certificate",
    "key_path": "tls.key",
    "env": "production",
    "log_level": "log_level",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the overview.

    Attributes:
        group: ``model``, ``engine``, ``sampling`` or ``server``.
        name: Its name there.
        value: As JSON has it; the keys of ``api_keys`` are masked.
        origin: ``default``, ``profile``, ``.env``, ``environment`` or ``flag``.
        variable: The environment variable that sets it, where there is one.
    """

    group: str
    name: str
    value: Any
    origin: str
    variable: str | None


class Overview:
    """Puts defaults, a profile, the environment and flags together, and keeps who said what.

    Args:
        profile: A profile's name or path.
        settings: What the environment says.
        model: A model file that a flag names.
        engine_flags: Fields of ``EngineConfig``; None is not given.
        server_flags: Fields of ``ServerConfig``; None is not given.

    Raises:
        NotFoundError: There is no such profile.
        ConfigError: Something is not allowed; the message names it.
    """

    def __init__(
        self,
        profile: str | Path,
        settings: Settings,
        *,
        model: Path | None = None,
        engine_flags: Mapping[str, Any] | None = None,
        server_flags: Mapping[str, Any] | None = None,
    ) -> None:
        loaded = Profile.load(profile)
        self._in_profile = _keys_of(profile)
        self._settings = settings
        self._flags = {
            *(f"engine.{name}" for name, value in (engine_flags or {}).items() if value is not None),
            *(f"server.{name}" for name, value in (server_flags or {}).items() if value is not None),
            *(["model.model"] if model is not None else []),
        }
        applied = settings.apply(loaded)
        self._batch_raised = applied.engine.batch_tokens != loaded.engine.batch_tokens
        engine = applied.engine.replace(**engine_flags or {})
        source = applied.model if model is None else ModelSource(path=str(model))
        self.profile = applied.model_copy(update={"engine": engine, "model": source})
        self.server = settings.server(**server_flags or {})

    def settings(self) -> list[Setting]:
        """Return each setting, by group."""
        return [*self._model(), *self._engine(), *self._sampling(), *self._server()]

    def _model(self) -> list[Setting]:
        names = [n for n in Profile.model_fields if n not in ("schema_location", "model", "sampling", "engine")]
        rows = [
            self._setting("model", name, getattr(self.profile, name), _names_of(_PROFILE_SETTINGS, name), name)
            for name in names
        ]
        return [
            rows[0],
            self._setting("model", "model", _place_of(self.profile.model), _MODEL_SETTINGS, "model"),
            *rows[1:],
        ]

    def _engine(self) -> list[Setting]:
        rows = []
        for field in dataclasses.fields(self.profile.engine):
            setters = _names_of(ENGINE_FIELDS, field.name)
            if field.name == "batch_tokens" and self._batch_raised:
                setters = ("physical_batch_size",)
            value = getattr(self.profile.engine, field.name)
            rows.append(self._setting("engine", field.name, value, setters, f"engine.{field.name}"))
        return rows

    def _sampling(self) -> list[Setting]:
        return [
            self._setting(
                "sampling",
                field.name,
                getattr(self.profile.sampling, field.name),
                _names_of(SAMPLING_FIELDS, field.name),
                f"sampling.{field.name}",
            )
            for field in dataclasses.fields(self.profile.sampling)
        ]

    def _server(self) -> list[Setting]:
        values = _server_values(self.server) | {"log_level": self._settings.log_level}
        return [
            self._setting("server", name, value, _names_of(_SERVER_SETTINGS, name), "")
            for name, value in values.items()
        ]

    def _setting(self, group: str, name: str, value: Any, setters: tuple[str, ...], key: str) -> Setting:
        if f"{group}.{name}" in self._flags:
            origin = "flag"
        else:
            said = "profile" if key in self._in_profile else "default"
            origin = self._settings.origin_of(*setters) or said
        # Of several names the one that is given, else the first.
        given = next((s for s in setters if self._settings.origin_of(s)), setters[0] if setters else None)
        variable = variable_of(type(self._settings), given) if given else None
        return Setting(group, name, _as_json(value), origin, variable)


def _keys_of(profile: str | Path) -> set[str]:
    """Return what the profile's file itself says, with dots: what it leaves out is a default."""
    path = find_profile(profile)
    keys = set[str]()
    for key, value in parse_json_object(path.read_text(encoding="utf-8-sig"), source=str(path)).items():
        keys.add(key)
        if key in ("engine", "sampling"):
            keys.update(f"{key}.{name}" for name in value)
    return keys


def _names_of(fields: Mapping[str, str], field: str) -> tuple[str, ...]:
    return tuple(name for name, target in fields.items() if target == field)


def _server_values(server: ServerConfig) -> dict[str, Any]:
    values = {field.name: getattr(server, field.name) for field in dataclasses.fields(server)}
    tls: TlsFiles | None = values.pop("tls")
    keys: Mapping[str, str] | None = values["api_keys"]
    values["api_keys"] = None if keys is None else [f"{tenant}:{_MASK}" for tenant in keys.values()]
    for part in dataclasses.fields(TlsFiles):
        values[f"tls.{part.name}"] = getattr(tls, part.name, None)
    return values


def _place_of(source: ModelSource) -> str:
    if source.path is not None:
        return source.path
    if source.package is not None:
        return f"{source.file} in the package {source.package}"
    revision = f" at {source.revision}" if source.revision else ""
    return f"{source.file} of {source.repo}{revision} on Hugging Face"


def _as_json(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
