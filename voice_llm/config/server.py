"""ServerConfig: where the engine is served, to whom, and within which bounds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from ..errors import ConfigError

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
        host: Address to listen on.
        http_port: Of OpenAI-compatible HTTP; 0 takes any that is free, as for the other ports.
        grpc_port: Of gRPC.
        metrics_port: Of Prometheus metrics.
        ws_port: Of WebSocket calls.
        drain_s: How long calls may go on after SIGTERM, in seconds.
        resume_s: How long a call waits for its dropped connection to come back, in seconds.
        call_idle_s: How long a call known only by ``x-call-id`` is kept without a request, in seconds.
        max_request_bytes: Largest HTTP body, gRPC message or WebSocket message.
        max_messages: Most messages of one request's history.
        max_reply_tokens: Largest ``max_tokens`` that a request may ask for.
        max_calls_per_tenant: Most calls of one tenant at once; None for no bound but the engine's.
        cors_origins: Web pages that may use the HTTP interface; none by default.
        api_keys: Secret -> tenant, for HTTP and WebSocket; None where keys are not asked for.
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
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}; allowed is a number from {low} to {high}", param=name)
        if self.production and self.tls is None:
            raise ConfigError("production needs mutual TLS: give the CA, the certificate and the key", param="tls")

    def replace(self, **overrides: Any) -> Self:
        """Return a copy with ``overrides``; a value of None leaves the field as it is."""
        return dataclasses.replace(self, **{k: v for k, v in overrides.items() if v is not None})


_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    **dict.fromkeys(("http_port", "grpc_port", "metrics_port", "ws_port"), (0, 65535)),
    "drain_s": (0, 86_400),
    "resume_s": (0, 86_400),
    "call_idle_s": (0, 86_400),
    "max_request_bytes": (1024, 2**31 - 1),
    "max_messages": (1, 1_000_000),
    "max_reply_tokens": (1, 1_000_000),
}
