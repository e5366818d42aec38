"""Settings: what the environment comes to, over what the profile says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .engine import EngineConfig
from .keys import parse_keys, read_clients, read_keys
from .profile import ModelSource, Profile
from .server import ServerConfig, TlsFiles
from .sources import ENV_PREFIX, variable_of
from .variables import ENGINE_FIELDS, SAMPLING_FIELDS, SERVER_FIELDS, LogLevel, Variables, listed

__all__ = ["ENV_PREFIX", "LogLevel", "Settings"]


class Settings(Variables):
    """What the environment and ``.env`` say (see ``Variables``), put together.

    Raises:
        ConfigError: A variable is unknown, or has a value that is not allowed; the message names all of them.
    """

    def apply(self, profile: Profile) -> Profile:
        """Return the profile with these settings over it.

        Raises:
            ConfigError: Settings contradict each other.
        """
        update: dict[str, object] = {
            "engine": self._engine(profile.engine),
            "sampling": profile.sampling.replace(**self._values(SAMPLING_FIELDS)),
            "model": self._model() or profile.model,
        }
        for name, field in (("default_system_prompt", "system_prompt"), ("default_rag_prompt", "rag_prompt")):
            if getattr(self, name) is not None:
                update[field] = getattr(self, name)
        return profile.model_copy(update=update)

    def server(self, **flags: Any) -> ServerConfig:
        """Return what to serve with: these settings over the defaults, and ``flags`` over both.

        Args:
            **flags: Fields of ``ServerConfig``; None is not given.

        Raises:
            ConfigError: Settings contradict each other, or a file that they name cannot be used.
        """
        values = self._values(SERVER_FIELDS)
        values["cors_origins"] = None if self.cors_origins is None else listed(self.cors_origins)
        values["api_keys"] = self._api_keys()
        values["clients"] = None if self.clients_file is None else read_clients(self.clients_file)
        values["tls"] = self._tls()
        values["production"] = self._is_production
        return ServerConfig().replace(**values | {name: value for name, value in flags.items() if value is not None})

    @property
    def _is_production(self) -> bool:
        return self.env is not None and self.env.strip().lower() == "production"

    def _values(self, fields: Mapping[str, str]) -> dict[str, Any]:
        """Return what is given, by field; two names of one field must agree."""
        given: dict[str, Any] = {}
        names: dict[str, str] = {}
        for name, field in fields.items():
            value = getattr(self, name)
            if value is None:
                continue
            if given.setdefault(field, value) != value:
                raise _contradiction(self, names[field], name, "they are the same setting and differ")
            names.setdefault(field, name)
        return given

    def _engine(self, engine: EngineConfig) -> EngineConfig:
        values = self._values(ENGINE_FIELDS)
        if isinstance(self.physical_batch_size, int):
            values["batch_tokens"] = max(engine.batch_tokens, self.physical_batch_size)
        return engine.replace(**values)

    def _model(self) -> ModelSource | None:
        places = [name for name in ("model_dir", "model_id") if getattr(self, name) is not None]
        if self.model_path is not None:
            for name in (*places, *(["model_filename"] if self.model_filename is not None else [])):
                raise _contradiction(self, "model_path", name, "the first says all of where the model is")
            return ModelSource(path=self.model_path)
        if self.model_filename is None:
            for name in places:
                raise _alone(self, name, "model_filename")
            return None
        if not places:
            raise _alone(self, "model_filename", "model_dir", "model_id")
        local = None if self.model_dir is None else Path(self.model_dir).expanduser() / self.model_filename
        if local is not None and (self.model_id is None or local.is_file()):
            return ModelSource(path=str(local))
        return ModelSource(repo=self.model_id, file=self.model_filename)

    def _api_keys(self) -> dict[str, str] | None:
        if self.api_keys is not None and self.api_keys_file is not None:
            raise _contradiction(self, "api_keys", "api_keys_file", "give one of them")
        if self.api_keys_file is not None:
            return read_keys(self.api_keys_file)
        return None if self.api_keys is None else parse_keys(self.api_keys.get_secret_value())

    def _tls(self) -> TlsFiles | None:
        files = {name: getattr(self, name) for name in ("tls_ca", "cert_path", "key_path")}
        missing = [variable_of(type(self), name) for name, path in files.items() if path is None]
        if len(missing) == len(files) and not self._is_production:
            return None
        if missing:
            why = "ENV is production, which" if self._is_production else "mutual TLS"
            raise ConfigError(f"{', '.join(missing)}: missing; {why} needs all three files", param=missing[0])
        for name, path in files.items():
            _check_file(variable_of(type(self), name), path)
        ca, certificate, key = (path.expanduser() for path in files.values())
        return TlsFiles(ca, certificate, key)


def _check_file(variable: str, path: Path) -> None:
    try:
        with path.expanduser().open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{variable}: {path} cannot be read: {error.strerror}", param=variable) from None


def _contradiction(settings: Settings, one: str, other: str, why: str) -> ConfigError:
    first, second = (variable_of(type(settings), name) for name in (one, other))
    return ConfigError(f"{first} and {second} are both given: {why}", param=second)


def _alone(settings: Settings, name: str, *needed: str) -> ConfigError:
    variable = variable_of(type(settings), name)
    others = " or ".join(variable_of(type(settings), n) for n in needed)
    return ConfigError(f"{variable} is {getattr(settings, name)!r}, and needs {others} beside it", param=variable)
