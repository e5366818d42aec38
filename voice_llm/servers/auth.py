"""Authenticator: says from a key or a client certificate who is asking, and in which tenant's name."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from ..config import ServerConfig
from ..config.keys import is_tenant_name
from ..errors import ForbiddenError, InvalidRequestError, UnauthenticatedError
from .identity import Identity

__all__ = ["DEFAULT_TENANT", "TENANT_HEADER", "Authenticator"]

DEFAULT_TENANT: Final = "default"
TENANT_HEADER: Final = "x-tenant-id"

_BEARER: Final = "bearer"
_SUBPROTOCOL: Final = "bearer."


class Authenticator:
    """Says who is asking. Keys and certificates decide the tenant; a header can only repeat it.

    Args:
        config: Which keys and certificates belong to whom.
    """

    def __init__(self, config: ServerConfig) -> None:
        keys = config.api_keys
        # Digests have one length, so that comparing them tells nothing about a key's.
        self._keys = None if keys is None else [(_digest(secret), tenant) for secret, tenant in keys.items()]
        self._clients = None if config.clients is None else dict(config.clients)

    def __repr__(self) -> str:
        keys = "none" if self._keys is None else len(self._keys)
        clients = "by common name" if self._clients is None else len(self._clients)
        return f"<Authenticator [keys: {keys} | certificates: {clients}]>"

    def by_key(
        self, *, authorization: str | None, subprotocols: Sequence[str] = (), tenant: str | None, loopback: bool
    ) -> Identity:
        """Identify the sender of an HTTP request or the opener of a WebSocket.

        Args:
            authorization: The header of that name, ``Bearer <key>``.
            subprotocols: What a WebSocket offers; browsers send their key as ``bearer.<key>``. The header goes first.
            tenant: The ``x-tenant-id`` header.
            loopback: Whether the peer is on this machine.

        Raises:
            UnauthenticatedError: Keys are asked for, and none or an unknown one is given.
            ForbiddenError: The header names another tenant than the peer's.
            InvalidRequestError: The header is not a tenant's name.
        """
        if self._keys is None:
            return self._anonymous(tenant, loopback=loopback)
        return _own(self._owner(_key_in(authorization, subprotocols)), tenant)

    def by_certificate(
        self,
        *,
        names: Sequence[str] | None,
        common_name: str | None = None,
        authorization: str | None = None,
        tenant: str | None,
        loopback: bool,
    ) -> Identity:
        """Identify the sender of a gRPC request; a certificate goes before a key.

        Args:
            names: What the client's certificate names, the common name and the alternative names.
                None where the connection is plain text: what is said of keys holds then.
            common_name: The one of them that is the tenant where no list says whose a name is; None without one.
            authorization: The metadata of that name.
            tenant: The ``x-tenant-id`` metadata.
            loopback: Whether the peer is on this machine.

        Raises:
            UnauthenticatedError: As ``by_key``, without a certificate.
            ForbiddenError: The certificate is nobody's, or the metadata names another tenant than its own.
            InvalidRequestError: The metadata is not a tenant's name.
        """
        if names is None:
            return self.by_key(authorization=authorization, tenant=tenant, loopback=loopback)
        return _own(self._holder(names, common_name), tenant)

    def _anonymous(self, tenant: str | None, *, loopback: bool) -> Identity:
        named = DEFAULT_TENANT if tenant is None else _checked(tenant)
        if named != DEFAULT_TENANT and not loopback:
            raise ForbiddenError(f"{TENANT_HEADER} is believed from this machine only, where no keys are set up")
        return Identity(named)

    def _owner(self, key: str | None) -> Identity:
        if key is None:
            raise UnauthenticatedError("a key is missing: send Authorization: Bearer <key>")
        given, found = _digest(key), 0
        # All are compared, whichever it is: the time tells nothing about which came near.
        for number, (digest, _) in enumerate(self._keys or (), start=1):
            found = number if hmac.compare_digest(digest, given) else found
        if not found:
            raise UnauthenticatedError("the key is unknown")
        return Identity((self._keys or [])[found - 1][1], f"key {found}")

    def _holder(self, names: Sequence[str], common_name: str | None) -> Identity:
        if self._clients is None:
            if common_name is None or not is_tenant_name(common_name):
                raise ForbiddenError("the client's certificate has no common name that can be a tenant's")
            return Identity(common_name, f"certificate {common_name}")
        known = [(name, self._clients[name]) for name in names if name in self._clients]
        if len({tenant for _, tenant in known}) != 1:
            raise ForbiddenError("the client's certificate belongs to " + ("several tenants" if known else "nobody"))
        name, tenant = known[0]
        return Identity(tenant, f"certificate {name}")


def _own(identity: Identity, tenant: str | None) -> Identity:
    if tenant is not None and _checked(tenant) != identity.tenant:
        raise ForbiddenError(f"{TENANT_HEADER} names another tenant than the one that is asking")
    return identity


def _checked(tenant: str) -> str:
    if not is_tenant_name(tenant):
        raise InvalidRequestError(f"{TENANT_HEADER} must be 1 to 128 printable characters", param=TENANT_HEADER)
    return tenant


def _key_in(authorization: str | None, subprotocols: Sequence[str]) -> str | None:
    if authorization is not None:
        scheme, _, key = authorization.strip().partition(" ")
        return key.strip() or None if scheme.lower() == _BEARER else None
    offered = (protocol.removeprefix(_SUBPROTOCOL) for protocol in subprotocols if protocol.startswith(_SUBPROTOCOL))
    return next(offered, None)


def _digest(secret: str) -> bytes:
    # Header values that are not UTF-8 arrive with surrogates; they match no key, and must not fail either.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
