"""The HTTP interface as the clients use it; the only module of the command line that imports aiohttp."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from .client import UnreachableError
from .endpoints import Endpoints

__all__ = ["get_health"]


async def get_health(endpoints: Endpoints, timeout_s: float) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of ``GET /health``.

    Raises:
        UnreachableError: No server answers within the time, or it is another one.
    """
    endpoint = endpoints.http
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=endpoints.headers()) as session,
            session.get(f"http://{endpoint}/health", allow_redirects=False) as response,
        ):
            status, text = response.status, await response.text(errors="replace")
    except TimeoutError:
        raise UnreachableError(endpoint, "no answer in time") from None
    except aiohttp.ClientConnectorDNSError:
        raise UnreachableError(endpoint, "the name cannot be resolved") from None
    except aiohttp.ClientConnectorError as e:
        refused = isinstance(e.os_error, ConnectionRefusedError)
        why = "the connection is refused" if refused else e.os_error.strerror or "it cannot be reached"
        raise UnreachableError(endpoint, why) from None
    except aiohttp.ClientError:
        raise UnreachableError(endpoint, "what answers there is not HTTP") from None
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict) or "status" not in body:
        raise UnreachableError(endpoint, f"another server answers there (HTTP {status})")
    return status, body
