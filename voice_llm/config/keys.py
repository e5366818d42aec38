"""Who may ask: names of tenants, their keys, and whose machine a certificate belongs to.

No message here repeats any of what it was given: a key may stand where a name should.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ..errors import ConfigError
from .explain import parse_json_object

__all__ = ["is_key", "is_tenant_name", "parse_keys", "read_clients", "read_keys"]

logger = logging.getLogger(__name__)

_MAX_NAME_CHARS: Final = 128
_FORM: Final = "allowed is tenant:key, the tenant 1 to 128 printable characters, the key visible ASCII without a comma"


def is_tenant_name(name: object) -> bool:
    """Return whether ``name`` can be a tenant's: 1 to 128 printable characters, no space around them."""
    return isinstance(name, str) and 0 < len(name) <= _MAX_NAME_CHARS and name.isprintable() and name.strip() == name


def is_key(secret: object) -> bool:
    """Return whether ``secret`` can be sent in a header as it is: visible ASCII."""
    return isinstance(secret, str) and bool(secret) and all("!" <= character <= "~" for character in secret)


def parse_keys(text: str) -> dict[str, str]:
    """Read ``tenant:key,tenant:key``; a tenant may have several keys.

    Returns:
        Key -> tenant.

    Raises:
        ConfigError: An entry is not of that form, or a key is given twice.
    """
    return _keys((f"entry {number}", entry) for number, entry in enumerate(text.split(","), start=1))


def read_keys(path: Path) -> dict[str, str]:
    """Read a file with one ``tenant:key`` a line; blank lines and lines that start with ``#`` say nothing.

    Returns:
        Key -> tenant.

    Raises:
        ConfigError: The file cannot be read or holds no key, a line is not of that form, or a key is given twice.
    """
    text = _read(path)
    if text.lstrip().startswith("{"):  # it would be read as a tenant's name
        raise ConfigError(f"{path} is JSON; allowed is one tenant:key a line")
    lines = enumerate(text.splitlines(), start=1)
    if _others_may_read(path):
        logger.warning("%s holds keys and every user of this machine can read it", path)
    try:
        return _keys((f"line {n}", line) for n, line in lines if line.strip() and not line.lstrip().startswith("#"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_clients(path: Path) -> dict[str, str]:
    """Read a JSON object of a certificate's name -> its tenant.

    Raises:
        ConfigError: The file cannot be read, is not such an object, or is empty.
    """
    clients = parse_json_object(_read(path), source=str(path))
    for name, tenant in clients.items():
        if not name or not is_tenant_name(tenant):
            raise ConfigError(f"{path}: {name!r} must name a tenant, with 1 to 128 printable characters")
    if not clients:
        raise ConfigError(f"{path} names no certificate")
    return clients


def _keys(entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for place, entry in entries:
        tenant, _, secret = (part.strip() for part in entry.strip().partition(":"))
        if not is_tenant_name(tenant) or not is_key(secret) or "," in secret:
            raise ConfigError(f"{place} is not a tenant and its key; {_FORM}")
        if secret in keys:
            raise ConfigError(f"{place} repeats a key")
        keys[secret] = tenant
    if not keys:
        raise ConfigError("there is no key in it")
    return keys


def _read(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} cannot be read: it is not UTF-8 text") from None


def _others_may_read(path: Path) -> bool:
    return bool(path.expanduser().stat().st_mode & stat.S_IROTH)
