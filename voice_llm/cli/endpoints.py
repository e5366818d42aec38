"""Where a server is and how to speak to it: the options that all clients share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Self

import typer

from ..errors import ConfigError

__all__ = [
    "DEFAULT_GRPC",
    "DEFAULT_HTTP",
    "ApiKeyOption",
    "Endpoints",
    "GrpcEndpointOption",
    "HttpEndpointOption",
    "TenantOption",
    "TlsCaOption",
    "TlsCertOption",
    "TlsKeyOption",
]

DEFAULT_GRPC: Final = "127.0.0.1:16071"
DEFAULT_HTTP: Final = "127.0.0.1:16070"

_SERVER = "Server"

GrpcEndpointOption = Annotated[
    str, typer.Option(help="The server's gRPC interface.", metavar="HOST:PORT", rich_help_panel=_SERVER)
]
HttpEndpointOption = Annotated[
    str, typer.Option(help="The server's HTTP interface.", metavar="HOST:PORT", rich_help_panel=_SERVER)
]
TlsCaOption = Annotated[
    Path | None,
    typer.Option(
        help="Certificates of the authorities that the gRPC server's is checked against; turns TLS on.",
        envvar="GRPC_TLS_CA_PATH",
        metavar="FILE",
        rich_help_panel=_SERVER,
    ),
]
TlsCertOption = Annotated[
    Path | None,
    typer.Option(
        help="Own certificate, for mutual TLS.",
        envvar="VOICE_LLM_CLIENT_CERT_PATH",
        metavar="FILE",
        rich_help_panel=_SERVER,
    ),
]
TlsKeyOption = Annotated[
    Path | None,
    typer.Option(help="Its private key.", envvar="VOICE_LLM_CLIENT_KEY_PATH", metavar="FILE", rich_help_panel=_SERVER),
]
TenantOption = Annotated[
    str | None,
    typer.Option(
        help="In whose name to ask: the one that the key or certificate belongs to, where there is one.",
        metavar="NAME",
        rich_help_panel=_SERVER,
    ),
]
ApiKeyOption = Annotated[
    str | None,
    typer.Option(
        help="Key of the server; the variable keeps it out of the process list.",
        envvar="VOICE_LLM_API_KEY",
        metavar="KEY",
        rich_help_panel=_SERVER,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where a server is and how to speak to it.

    Attributes:
        grpc: ``host:port`` of its gRPC interface.
        http: ``host:port`` of its HTTP interface.
        tls_ca: PEM file of the authorities that its gRPC certificate is checked against; the system's by default.
        tls_cert: PEM file of the client's certificate.
        tls_key: PEM file of its private key.
        tenant: In whose name to ask.
        api_key: Shown to the server only.

    Raises:
        ConfigError: A value is not allowed; the message names the option.
    """

    grpc: str = DEFAULT_GRPC
    http: str = DEFAULT_HTTP
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tenant: str | None = None
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for option, value in (("--grpc-endpoint", self.grpc), ("--http-endpoint", self.http)):
            _check_endpoint(option, value)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("--tls-cert and --tls-key go together: give both or neither", param="tls_cert")
        for option, text in (("--tenant", self.tenant), ("--api-key", self.api_key)):
            if text is not None and not (text and text.isascii() and text.isprintable()):
                raise ConfigError(f"{option} must be printable ASCII characters", param=option.removeprefix("--"))

    @classmethod
    def of_grpc(
        cls,
        endpoint: str,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        tenant: str | None,
        api_key: str | None,
    ) -> Self:
        """Return the endpoints of a command that speaks gRPC only."""
        return cls(grpc=endpoint, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key, tenant=tenant, api_key=api_key)

    @property
    def uses_tls(self) -> bool:
        """Whether gRPC is encrypted: it is as soon as one of the files is given."""
        return self.tls_ca is not None or self.tls_cert is not None

    def check_tenant(self) -> None:
        """Check that there is a tenant to name, which GenerateStream wants beside a key or certificate too.

        Raises:
            ConfigError: There is none.
        """
        if "x-tenant-id" not in self.headers():
            raise ConfigError("--tenant is missing: with a key or a certificate, say whose it is", param="tenant")

    def headers(self) -> dict[str, str]:
        """Return the headers, or gRPC metadata, that say who is asking."""
        # Without a key or certificate that has one, the tenant is named.
        anonymous = not self.uses_tls and self.api_key is None
        tenant = self.tenant or ("default" if anonymous else None)
        headers = {} if tenant is None else {"x-tenant-id": tenant}
        return headers if self.api_key is None else headers | {"authorization": f"Bearer {self.api_key}"}


def _check_endpoint(option: str, value: str) -> None:
    host, _, port = value.rpartition(":")
    bare_v6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not host or "/" in host or bare_v6 or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"{option} is {value!r}; allowed is HOST:PORT, such as 127.0.0.1:16071", param=option[2:])
