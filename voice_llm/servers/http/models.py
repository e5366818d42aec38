"""``/v1/models``, ``/v1/profiles`` and ``/v1/calls``: what is served, and what clients keep here."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from ...config import list_profiles
from ...errors import InvalidRequestError, NotFoundError
from ...runtime import Engine
from ...session.contract import check_id
from ..edge import Edge
from .body import read_object
from .request_keys import IDENTITY

__all__ = ["Calls", "Models", "model_names"]


def model_names(engine: Engine) -> tuple[str, ...]:
    """Return what a request may call the model: the profile's name, as ``/v1/models`` lists it, or the model's own."""
    return (engine.profile.name, engine.backend.info.model_id)


class Models:
    """Answers what is served.

    Args:
        edge: What all servers share.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._created_s = int(time.time())

    async def models(self, request: web.Request) -> web.Response:
        """List the one model, by the name of its profile."""
        return web.json_response({"object": "list", "data": [self._model()]})

    async def model(self, request: web.Request) -> web.Response:
        """Describe one model.

        Raises:
            NotFoundError: It is not served.
        """
        if (name := request.match_info["model"]) != self._edge.host.profile_name:
            raise NotFoundError(f"there is no model {name!r} here")
        return web.json_response(self._model())

    async def profiles(self, request: web.Request) -> web.Response:
        """List the profiles that there are, the served one among them."""
        current = self._edge.host.profile_name
        return web.json_response({"profiles": sorted({current, *list_profiles()}), "current_profile": current})

    async def switch(self, request: web.Request) -> web.Response:
        """Answer that the profile is served, where it is; another one is chosen when the server is started.

        Raises:
            InvalidRequestError: It is another, or the body is not ``{"profile": NAME}``.
            NotFoundError: There is no such profile.
        """
        body = await read_object(request, max_bytes=self._edge.config.max_request_bytes)
        for name in body:
            if name != "profile":
                raise InvalidRequestError(f"unknown field {name!r}", param=name)
        profile, current = body.get("profile"), self._edge.host.profile_name
        if not isinstance(profile, str):
            raise InvalidRequestError("profile must be a name", param="profile")
        if profile == current:
            return web.json_response({"current_profile": current})
        if profile not in list_profiles():
            raise NotFoundError(f"there is no profile {profile!r}")
        raise InvalidRequestError(
            f"the profile is {current!r}; another is chosen when the server is started", param="profile"
        )

    def _model(self) -> dict[str, Any]:
        name = self._edge.host.profile_name
        return {"id": name, "object": "model", "created": self._created_s, "owned_by": "voice_llm"}


class Calls:
    """Ends calls that requests have shared by ``x-call-id``.

    Args:
        edge: What all servers share.
    """

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def delete(self, request: web.Request) -> web.Response:
        """End a call.

        Raises:
            NotFoundError: The tenant has no such call.
        """
        call_id = check_id(request.match_info["call_id"], "call_id")
        await self._edge.soft_calls.drop(request[IDENTITY], call_id)
        return web.Response(status=204)
