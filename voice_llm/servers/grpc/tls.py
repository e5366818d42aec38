"""Mutual TLS: who has no certificate of a known authority does not even get to ask."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from ...config import TlsFiles
from ...errors import ConfigError

__all__ = ["mutual_tls"]


def mutual_tls(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that ask each client for a certificate.

    Raises:
        ConfigError: A file cannot be read or used, or the key is not the certificate's; the message names the file.
    """
    ca, certificate, key = (_read(path) for path in (files.ca, files.certificate, files.key))
    _check(files)
    return grpc.ssl_server_credentials([(key, certificate)], root_certificates=ca, require_client_auth=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the TLS file {path} cannot be read: {error.strerror or error}", param="tls") from None


def _check(files: TlsFiles) -> None:
    """Look at the files as gRPC will: it only logs what is wrong, and then refuses every handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(files.ca)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{files.ca} holds no certificates of authorities: {_reason(error)}", param="tls") from None
    try:
        # An encrypted key would ask the terminal for its password.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"{files.certificate} and {files.key} are no certificate and its key: {_reason(error)}", param="tls"
        ) from None


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
