"""Where the environment says that the engine is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..config import TlsFiles
from ..errors import ConfigError

if TYPE_CHECKING:
    from .engine import RemoteEngine

__all__ = ["connect_from_environment", "tls_from_environment"]

_ENDPOINT: Final = "VOICE_LLM_ENDPOINT"
_API_KEY: Final = "VOICE_LLM_API_KEY"
_TLS: Final = {
    "ca": "GRPC_TLS_CA_PATH",
    "certificate": "VOICE_LLM_CLIENT_CERT_PATH",
    "key": "VOICE_LLM_CLIENT_KEY_PATH",
}


async def connect_from_environment(environment: Mapping[str, str] = os.environ) -> RemoteEngine | None:
    """Connect to ``VOICE_LLM_ENDPOINT`` (``host:port``); None where that says nothing.

    ``GRPC_TLS_CA_PATH``, ``VOICE_LLM_CLIENT_CERT_PATH`` and ``VOICE_LLM_CLIENT_KEY_PATH`` make it mutual TLS;
    ``VOICE_LLM_API_KEY`` is for a server that asks for a key.

    Raises:
        EngineDeadError: No server answers there; else as ``RemoteEngine.connect``.
        ImportError: The extra ``remote`` is not installed; only where there is an endpoint.
        ConfigError: The endpoint is not ``host:port``, or some but not all TLS files are named.
    """
    endpoint = environment.get(_ENDPOINT, "").strip()
    if not endpoint:
        return None
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"{_ENDPOINT} is {endpoint!r}; allowed is host:port", param=_ENDPOINT)
    tls = tls_from_environment(environment)
    from . import RemoteEngine

    return await RemoteEngine.connect(endpoint, tls=tls, api_key=environment.get(_API_KEY) or None)


def tls_from_environment(environment: Mapping[str, str] = os.environ) -> TlsFiles | None:
    """Return the files of mutual TLS that the environment names; None where it names none.

    Raises:
        ConfigError: Some are named, but not all; the message says which are missing.
    """
    found = {field: environment.get(name, "") for field, name in _TLS.items()}
    if not any(found.values()):
        return None
    missing = [name for field, name in _TLS.items() if not found[field]]
    if missing:
        raise ConfigError(f"mutual TLS needs {' and '.join(missing)} as well", param=missing[0])
    return TlsFiles(**{field: Path(path) for field, path in found.items()})
