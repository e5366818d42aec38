"""ServerConfig: where the engine is served, to whom, and within which bounds."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from ..errors import ConfigError
from .explain import unknown
from .keys import is_key, is_tenant_name

__all__ = ["ServerConfig", "TlsFiles"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of mutual TLS.

    Attributes:
        ca: Certificates of the authorities whose clients are let in.
        certificate: The server's own certificate chain.
        key: Its private key.
    """

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where the engine is served, to whom, and within which bounds; validated.

    Attributes:
        host: Address to listen on, of all four interfaces.
        http_port: Of OpenAI-compatible HTTP; 0 takes any that is free, as for the other ports.
        grpc_port: Of gRPC.
        metrics_port: Of Prometheus metrics.
        ws_port: Of WebSocket calls.
        drain_s: How long calls may go on after SIGTERM, in seconds.
        resume_s: How long a call waits for its dropped connection to come back, in seconds.
        call_idle_s: How long a call known only by ``x-call-id`` is kept without a request, in seconds; at least 1.
        max_request_bytes: Largest HTTP body, gRPC message or WebSocket message.
        max_messages: Most messages of one request's history.
        max_reply_tokens: Largest ``max_tokens`` that a request may ask for.
        max_calls_per_tenant: Most calls of one tenant at once; None for no bound but the engine's.
        cors_origins: Web pages that may use the HTTP interface; none by default.
        api_keys: Key -> tenant, for HTTP, WebSocket and plain-text gRPC; None where keys are not asked for.
        tls: Mutual TLS for gRPC; None for plain text.
        clients: Name in a client's certificate -> tenant; None takes the certificate's common name as the tenant.
        production: Refuse to start without mutual TLS.

    Raises:
        ConfigError: A value is not allowed.
    """

    host: str = "127.0.0.1"
    http_port: int = 16070
    grpc_port: int = 16071
    metrics_port: int = 16072
    ws_port: int = 16073
    drain_s: float = 30.0
    resume_s: float = 20.0
    call_idle_s: float = 120.0
    max_request_bytes: int = 1024 * 1024
    max_messages: int = 1024
    max_reply_tokens: int = 4096
    max_calls_per_tenant: int | None = None
    cors_origins: tuple[str, ...] = ()
    api_keys: dict[str, str] | None = field(default=None, repr=False)
    tls: TlsFiles | None = None
    clients: dict[str, str] | None = None
    production: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _WHOLE_NUMBERS.items():
            _check_number(name, getattr(self, name), low, high, (int,), "a whole number")
        for name, low_s in _DURATIONS.items():
            _check_number(name, getattr(self, name), low_s, _DAY_S, (int, float), "a number of seconds")
        if self.max_calls_per_tenant is not None:
            _check_number("max_calls_per_tenant", self.max_calls_per_tenant, 1, 1_000_000, (int,), "a whole number")
        _check_ports({name: getattr(self, name) for name in _PORTS})
        if not self.host or not self.host.isprintable() or " " in self.host:
            raise _refused("host", self.host, "an address or a host's name")
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise _refused("cors_origins", origin, "* or scheme://host[:port] in small letters, without a path")
        _check_people(self.api_keys, self.clients)
        if self.production and self.tls is None:
            raise ConfigError("production needs mutual TLS: give the CA, the certificate and the key", param="tls")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def replace(self, **overrides: Any) -> Self:
        """Return a copy with ``overrides``; a value of None leaves the field as it is.

        Raises:
            ConfigError: A name is unknown or a value is not allowed.
        """
        known = [f.name for f in dataclasses.fields(self)]
        for name in overrides:
            if name not in known:
                raise ConfigError(unknown("server setting", name, known), param=name)
        return dataclasses.replace(self, **{k: v for k, v in overrides.items() if v is not None})


_PORTS: Final = ("http_port", "grpc_port", "metrics_port", "ws_port")
_DURATIONS: Final = {"drain_s": 0, "resume_s": 0, "call_idle_s": 1}
_DAY_S: Final = 86_400
_WHOLE_NUMBERS: Final[dict[str, tuple[int, int]]] = {
    **dict.fromkeys(_PORTS, (0, 65535)),
    "max_request_bytes": (1024, 2**31 - 1),
    "max_messages": (1, 1_000_000),
    "max_reply_tokens": (1, 1_000_000),
}
# As browsers write it: it is compared as it is.
_ORIGIN: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^\sA-Z/,?#@]+")


def _check_number(name: str, value: object, low: int, high: int, kinds: tuple[type, ...], allowed: str) -> None:
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:  # type: ignore[operator]
        raise _refused(name, value, f"{allowed} from {low} to {high}")


def _check_ports(ports: Mapping[str, int]) -> None:
    taken: dict[int, str] = {}
    for name, port in ports.items():
        if port and port in taken:
            raise _refused(name, port, f"a port other than {taken[port]}")
        taken[port] = name


def _check_people(api_keys: Mapping[str, str] | None, clients: Mapping[str, str] | None) -> None:
    """Say nothing of a key in what is refused."""
    if api_keys is not None and not (api_keys and all(is_key(k) and is_tenant_name(t) for k, t in api_keys.items())):
        raise ConfigError("api_keys must hold at least one key, each with the name of its tenant", param="api_keys")
    if clients is not None and not (clients and all(n and is_tenant_name(t) for n, t in clients.items())):
        raise ConfigError("clients must hold at least one name, each with the name of its tenant", param="clients")


def _refused(name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{name} is {value!r}; allowed is {allowed}", param=name)
