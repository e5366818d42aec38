"""Who is at the other end of an RPC, and what its metadata says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote

import grpc

from ...errors import VoiceLLMError
from ..addresses import is_loopback
from ..auth import TENANT_HEADER, Authenticator
from ..identity import Identity

__all__ = ["Context", "identity_of", "identity_of_stream", "is_local", "metadata_of"]

Context = grpc.aio.ServicerContext[Any, Any]

_FIRST_MESSAGE_WITHIN_S: Final = 1.0
_NAMES: Final = ("x509_common_name", "x509_subject_alternative_name")


def metadata_of(context: Context) -> dict[str, str]:
    """Return the metadata that is text; of a name that comes twice, the first."""
    found: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(name, value)
    return found


def identity_of(context: Context, authenticator: Authenticator) -> Identity:
    """Say who is asking, from the client's certificate or its metadata.

    Raises:
        UnauthenticatedError: See ``Authenticator.by_certificate``, also for the rest.
        ForbiddenError: It may not ask in that tenant's name.
        InvalidRequestError: That is no tenant's name.
    """
    metadata = metadata_of(context)
    names, common_name = _certified_names(context.auth_context())
    return authenticator.by_certificate(
        names=names,
        common_name=common_name,
        authorization=metadata.get("authorization"),
        tenant=metadata.get(TENANT_HEADER),
        loopback=is_local(context.peer()),
    )


async def identity_of_stream(context: Context, authenticator: Authenticator, requests: AsyncIterator[Any]) -> Identity:
    """As ``identity_of``, for an RPC whose client streams.

    A refusal waits for the first message, for a moment: a client of gRPC's own library whose write fails, since the RPC
    has ended meanwhile, reports INTERNAL instead of the status.
    """
    try:
        return identity_of(context, authenticator)
    except VoiceLLMError:
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_MESSAGE_WITHIN_S):
                await anext(aiter(requests), None)
        raise


def is_local(peer: str) -> bool:
    """Whether a peer, as gRPC writes it (``ipv4:127.0.0.1:50000``), is on this machine."""
    kind, _, address = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind in ("unix", "unix-abstract")
    return is_loopback(address.rpartition(":")[0].strip("[]"))


def _certified_names(auth: Mapping[str, Any]) -> tuple[list[str] | None, str | None]:
    """Return what the client's certificate names, and its common name; no names where the connection is plain text."""
    if auth.get("transport_security_type") != [b"ssl"]:
        return None, None
    # gRPC writes a common name that is missing as an empty one.
    common, alternative = ([name.decode("utf-8", "replace") for name in auth.get(kind, ()) if name] for kind in _NAMES)
    return [*common, *alternative], next(iter(common), None)
