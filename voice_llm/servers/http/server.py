"""HttpServer: listens, and puts requests through to their handlers."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from aiohttp import web

from ...errors import ConfigError
from ..edge import Edge
from .body import BODY_S
from .chat import UNREAD_S, Chat
from .cors import Cors
from .health import Health
from .middlewares import PUBLIC, Middlewares, add_headers
from .models import Calls, Models
from .openapi import OpenApi
from .wire_log import wire_logger

__all__ = ["HttpServer"]

_IDLE_S: Final = 75.0
_UNREAD_BODY_S: Final = 2.0
_CLOSING_S: Final = 2.0


class HttpServer:
    """The OpenAI-compatible HTTP interface of an engine.

    Args:
        edge: What all servers share.
        body_s: How long the body of a request may take to arrive, in seconds.
        unread_s: How long a stream that has filled its client's buffers may stay unread, in seconds.
    """

    def __init__(self, edge: Edge, *, body_s: float = BODY_S, unread_s: float = UNREAD_S) -> None:
        self._edge = edge
        self._chat = Chat(edge, body_s=body_s, unread_s=unread_s)
        self._middlewares = Middlewares(edge)
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    def __repr__(self) -> str:
        state = "closed" if self._runner is None else "listening"
        return f"<HttpServer [{state} | requests: {len(self._middlewares.running)}]>"

    async def start(self) -> int:
        """Listen; returns the port, which matters where the configuration says 0.

        Raises:
            ConfigError: The port cannot be had.
        """
        config = self._edge.config
        runner = web.AppRunner(
            self._application(),
            handler_cancellation=True,  # a client that leaves stops its generation
            access_log=None,
            logger=wire_logger(),
            keepalive_timeout=_IDLE_S,
            lingering_time=_UNREAD_BODY_S,
            shutdown_timeout=_CLOSING_S,
        )
        await runner.setup()
        self._site = web.TCPSite(runner, config.host, config.http_port)
        try:
            await self._site.start()
        except OSError as error:
            await runner.cleanup()
            reason = os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)
            raise ConfigError(
                f"http_port: cannot listen on {config.host}:{config.http_port}: {reason}", param="http_port"
            ) from error
        self._runner = runner
        return int(runner.addresses[0][1])

    async def stop(self, grace_s: float = 0.0) -> None:
        """Close the listener and, after at most ``grace_s``, what is left of its connections; idempotent."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if self._site is not None:
            await self._site.stop()
        running = set(self._middlewares.running)
        if running and grace_s > 0:
            _, running = await asyncio.wait(running, timeout=grace_s)
        for task in running:
            task.cancel()
        await runner.cleanup()

    def _application(self) -> web.Application:
        edge, middlewares = self._edge, self._middlewares
        cors = Cors(edge.config.cors_origins)
        app = web.Application(
            middlewares=[
                middlewares.observe,
                middlewares.word_errors,
                cors.answer_preflights,
                middlewares.identify,
            ],
            client_max_size=edge.config.max_request_bytes,
        )
        models = Models(edge)
        app.add_routes(
            [
                web.get(PUBLIC, Health(edge).health),
                web.get("/openapi.json", OpenApi(edge).document),
                web.get("/v1/models", models.models),
                web.post("/v1/models/switch", models.switch),
                web.get("/v1/models/{model}", models.model),
                web.get("/v1/profiles", models.profiles),
                web.post("/v1/chat/completions", self._chat.complete),
                web.delete("/v1/calls/{call_id}", Calls(edge).delete),
            ]
        )
        app.on_response_prepare.append(add_headers)
        app.on_response_prepare.append(cors.add_headers)
        return app
