"""What the tests of the HTTP server share: a server on a free port, and clients for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from openai import AsyncOpenAI

from tests.servers.helpers import edge_around
from voice_llm.observer import Observer
from voice_llm.runtime import Engine
from voice_llm.servers.edge import Edge
from voice_llm.servers.http import HttpServer
from voice_llm.testing import FakeBackend


@dataclass
class Served:
    """A server, and clients that talk to it over a real socket."""

    edge: Edge
    server: HttpServer
    port: int
    http: aiohttp.ClientSession
    openai: AsyncOpenAI

    @property
    def engine(self) -> Engine:
        engine = self.edge.host.engine
        assert engine is not None
        return engine

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def ask(self, body: Any, **headers: str) -> tuple[int, Any]:
        """Ask for a chat completion; returns the status and the body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(self.url("/v1/chat/completions"), json=body, headers=named) as response:
            return response.status, await response.json()

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.get(self.url(path), headers=named) as response:
            return response.status, await response.json()


@asynccontextmanager
async def on(edge: Edge, *, key: str = "unused", **limits: float) -> AsyncIterator[Served]:
    """Serve an edge."""
    server = HttpServer(edge, **limits)
    port = await server.start()
    try:
        async with (
            aiohttp.ClientSession() as http,
            AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0) as openai,
        ):
            yield Served(edge, server, port, http, openai)
    finally:
        await server.stop()


@asynccontextmanager
async def serving(backend: FakeBackend | None = None, *, key: str = "unused", **options: Any) -> AsyncIterator[Served]:
    """Serve an engine on the fake backend; nothing may be left behind at the end."""
    async with edge_around(backend, **options) as edge, on(edge, key=key) as served:
        yield served


class Seen(Observer):
    """Remembers what it is told of requests."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []
        self.refused: list[str] = []

    def request_ended(self, interface: str, code: str, took_s: float) -> None:
        self.ended.append((interface, code))

    def call_refused(self, code: str) -> None:
        self.refused.append(code)


def said(text: str, **more: Any) -> dict[str, Any]:
    """A request with one thing said."""
    return {"messages": [{"role": "user", "content": text}], **more}
