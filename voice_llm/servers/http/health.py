"""``GET /health``: whether calls can be sent here."""

from __future__ import annotations

import math
from typing import Any

from aiohttp import web

from ..edge import Edge
from ..host import EngineHost, HostState
from ..status import RETRY_AFTER_S

__all__ = ["Health", "health_of"]


class Health:
    """Answers probes.

    Args:
        edge: What all servers share.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def health(self, request: web.Request) -> web.Response:
        """Answer 200 where calls are taken, else 503."""
        body = health_of(self._edge.host)
        status = body["status"]
        headers = {"Cache-Control": "no-store"}
        if status in RETRY_AFTER_S:
            headers["Retry-After"] = str(math.ceil(RETRY_AFTER_S[status]))
        return web.json_response(body, status=200 if status == "healthy" else 503, headers=headers)


def health_of(host: EngineHost) -> dict[str, Any]:
    """Return the body: how the engine stands and what room it has; why it is not well is for the log."""
    health = host.engine.health() if host.engine is not None else None
    works = health is not None and health.healthy
    ready = works and host.state is HostState.READY
    active, total = (health.open_calls, health.max_calls) if health is not None and works else (0, 0)
    return {
        "status": "healthy" if ready else _status(host.state, works=works),
        "model_ready": works,
        "current_profile": host.profile_name,
        "capacity": {"active": active, "total": total, "available": max(0, total - active) if ready else 0},
    }


def _status(state: HostState, *, works: bool) -> str:
    if state is HostState.LOADING or (state is HostState.DRAINING and works):
        return str(state.value)
    return "unhealthy"
