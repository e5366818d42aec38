"""Variables: what the environment and a ``.env`` file say, each value checked by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ..errors import ConfigError
from .engine import EngineConfig
from .explain import findings
from .keys import parse_keys
from .profile import ModelSource, Profile
from .sampling import SamplingParams
from .server import ServerConfig
from .sources import ENV_PREFIX, Origin, misnamed, origins, variable_of

__all__ = ["ENGINE_FIELDS", "SAMPLING_FIELDS", "SERVER_FIELDS", "LogLevel", "Variables", "listed"]

LogLevel = Literal["debug", "info", "warning", "error"]

# A setting -> the field that it sets: the names are those of the service that this one replaces.
ENGINE_FIELDS: Final = {
    "threads": "threads",
    "threads_batch": "threads_batch",
    "gpu_layers": "gpu_layers",
    "kv_offload": "kv_offload",
    "use_mmap": "use_mmap",
    "context_size": "context_per_call",
    "max_batch_size": "sequences",
    "physical_batch_size": "micro_batch_tokens",
}
SAMPLING_FIELDS: Final = {
    "default_max_tokens": "max_tokens",
    "default_temperature": "temperature",
    "default_top_k": "top_k",
    "default_top_p": "top_p",
    "default_min_p": "min_p",
    "default_repeat_penalty": "repetition_penalty",
    "default_repetition_penalty": "repetition_penalty",
    "default_presence_penalty": "presence_penalty",
    "default_frequency_penalty": "frequency_penalty",
}
SERVER_FIELDS: Final = {
    "listen_address": "host",
    "http_port": "http_port",
    "grpc_port": "grpc_port",
    "port_grpc": "grpc_port",
    "metrics_port": "metrics_port",
    "ws_port": "ws_port",
    "drain_s": "drain_s",
    "resume_s": "resume_s",
    "call_idle_s": "call_idle_s",
    "max_request_bytes": "max_request_bytes",
    "max_messages": "max_messages",
    "max_reply_tokens": "max_reply_tokens",
    "max_calls_per_tenant": "max_calls_per_tenant",
    "cors_origins": "cors_origins",
}

_FLAGS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}
_LEVELS: Final = {"warn": "warning"}
# What a value by itself is checked against: neither the profile's batch nor another port is in its way.
_ANY_ENGINE: Final = EngineConfig(batch_tokens=65_536)
_ANY_SERVER: Final = ServerConfig(http_port=0, grpc_port=0, metrics_port=0, ws_port=0)


class Variables(BaseSettings):
    """Values of ``LLM_LLAMA_SERVICE_*`` variables; None where the environment says nothing.

    The environment goes before ``.env`` in the working directory. An empty variable says nothing.

    Raises:
        ConfigError: A variable is unknown, or has a value that is not allowed; the message names all of them.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    model_path: str | None = None
    """A GGUF file, used instead of the profile's model."""
    model_dir: str | None = None
    """Folder of model files; goes with ``model_filename``."""
    model_id: str | None = None
    """A Hugging Face repository, ``owner/name``; goes with ``model_filename``."""
    model_filename: str | None = None
    """A GGUF file in ``model_dir``, or in the repository ``model_id`` where the folder does not have it."""
    threads: int | Literal["auto"] | None = None
    """CPU threads of a single-token step."""
    threads_batch: int | Literal["auto"] | None = None
    """CPU threads of a prefill step."""
    gpu_layers: int | None = None
    """Layers held by an accelerator; -1 holds all."""
    kv_offload: bool | None = None
    """Keep the KV cache in the accelerator's memory."""
    use_mmap: bool | None = None
    """Map the model file into memory instead of reading it."""
    context_size: int | None = None
    """Tokens of prompt and reply that one call can hold."""
    max_batch_size: int | None = None
    """Calls held side by side."""
    physical_batch_size: int | Literal["auto"] | None = None
    """Most tokens computed at once; raises the profile's ``batch_tokens`` where that is smaller."""
    default_max_tokens: int | None = None
    """Longest reply, in tokens, where a request does not say."""
    default_temperature: float | None = None
    """0 is greedy."""
    default_top_k: int | None = None
    """Keep the k likeliest tokens; 0 keeps all."""
    default_top_p: float | None = None
    """Keep the smallest set of tokens whose probability reaches this; 1 keeps all."""
    default_min_p: float | None = None
    """Drop tokens below this share of the likeliest one's probability."""
    default_repeat_penalty: float | None = None
    """Divides the logits of tokens already in the reply; 1 is off."""
    default_repetition_penalty: float | None = None
    """The same as ``default_repeat_penalty``."""
    default_presence_penalty: float | None = None
    """Subtracted once from the logits of tokens already in the reply."""
    default_frequency_penalty: float | None = None
    """Subtracted for each occurrence in the reply."""
    default_system_prompt: str | None = None
    """What every call begins with, instead of the profile's."""
    default_rag_prompt: str | None = None
    """User turn with retrieved text, instead of the profile's."""
    log_level: LogLevel = "warning"
    """Least severe level that is logged."""
    listen_address: str | None = None
    """Address that ``serve`` listens on."""
    http_port: int | None = None
    """Port of OpenAI-compatible HTTP; 0 takes any that is free, as for the other ports."""
    grpc_port: int | None = None
    """Port of gRPC."""
    port_grpc: int | None = None
    """The same as ``grpc_port``."""
    metrics_port: int | None = None
    """Port of Prometheus metrics."""
    ws_port: int | None = None
    """Port of WebSocket calls."""
    drain_s: float | None = None
    """How long calls may go on after SIGTERM, in seconds."""
    resume_s: float | None = None
    """How long a call waits for its dropped connection to come back, in seconds."""
    call_idle_s: float | None = None
    """How long a call known only by ``x-call-id`` is kept without a request, in seconds."""
    max_request_bytes: int | None = None
    """Largest HTTP body, gRPC message or WebSocket message."""
    max_messages: int | None = None
    """Most messages of one request's history."""
    max_reply_tokens: int | None = None
    """Largest ``max_tokens`` that a request may ask for."""
    max_calls_per_tenant: int | None = None
    """Most calls of one tenant at once."""
    cors_origins: str | None = None
    """Web pages that may use the HTTP interface, with commas between."""
    api_keys: SecretStr | None = None
    """``tenant:key,tenant:key``."""
    api_keys_file: Path | None = None
    """A file with one ``tenant:key`` a line."""
    clients_file: Path | None = None
    """A JSON object of a client certificate's name -> its tenant."""
    tls_ca: Path | None = Field(default=None, validation_alias="GRPC_TLS_CA_PATH")
    """Certificates of the authorities whose clients are let in, for mutual TLS."""
    cert_path: Path | None = None
    """The server's own certificate chain, for mutual TLS."""
    key_path: Path | None = None
    """The certificate's private key, for mutual TLS."""
    env: str | None = Field(default=None, validation_alias="ENV")
    """``production`` refuses to serve without mutual TLS."""

    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        cls = type(self)
        given = origins(cls)
        known = {variable_of(cls, name): name for name in cls.model_fields}
        found = misnamed(given, known)
        try:
            super().__init__(**values)
        except ValidationError as error:
            found += [(_variable_at(path), text) for path, text in findings(error, cls)]
        if found:
            raise ConfigError("\n".join(f"{name}: {text}" for name, text in found), param=found[0][0])
        self._origins = {known[name]: origin for name, origin in given.items() if name in known}

    @field_validator(*ENGINE_FIELDS, *SAMPLING_FIELDS, *SERVER_FIELDS, mode="before")
    @classmethod
    def _check_value(cls, value: object, info: ValidationInfo) -> object:
        """Let the one who uses a value say what is allowed."""
        name = info.field_name or ""
        if value is None:
            return None
        value = _parsed(name, value) if isinstance(value, str) else value
        if name in ENGINE_FIELDS:
            _ANY_ENGINE.replace(**{ENGINE_FIELDS[name]: value})
        elif name in SAMPLING_FIELDS:
            SamplingParams().replace(**{SAMPLING_FIELDS[name]: value})
        else:
            _ANY_SERVER.replace(**{SERVER_FIELDS[name]: listed(str(value)) if name == "cors_origins" else value})
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return _LEVELS.get(value.lower(), value.lower()) if isinstance(value, str) else value

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            parse_keys(keys.get_secret_value())
        return keys

    @field_validator("default_rag_prompt")
    @classmethod
    def _check_rag_prompt(cls, prompt: str | None) -> str | None:
        if prompt is not None:
            try:
                Profile(name="any", model=ModelSource(path="any"), rag_prompt=prompt)
            except ValidationError as error:
                raise ConfigError(findings(error, Profile)[0][1]) from None
        return prompt

    def origin_of(self, *names: str) -> Origin | None:
        """Return where the first of these settings that is given comes from; None where none is."""
        return next((self._origins[name] for name in names if name in self._origins), None)


def _variable_at(path: str) -> str:
    name = path.partition(".")[0]
    return variable_of(Variables, name) if name in Variables.model_fields else name


def listed(text: str) -> tuple[str, ...]:
    """Return the parts of a text with commas between them."""
    return tuple(part.strip() for part in text.split(","))


def _parsed(name: str, text: str) -> object:
    if name in ("kv_offload", "use_mmap"):
        return _FLAGS.get(text.strip().lower(), text)
    if name in ("listen_address", "cors_origins"):
        return text.strip()
    for parse in (int, float):
        try:
            return parse(text)
        except ValueError:
            continue
    return text.strip().lower()
