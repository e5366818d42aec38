"""The OpenAPI document is true, and nothing that it describes, or comes near, makes the server fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.servers.helpers import any_ports
from voice_llm.config import ServerConfig
from voice_llm.servers.http.openapi import openapi_document
from voice_llm.servers.http.request import FIELDS

from .helpers import serving

pytestmark = pytest.mark.unit

DOCUMENT = openapi_document("test", ServerConfig())
AS_DOCUMENTED: Any = [status_code_conformance, content_type_conformance, response_schema_conformance]
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


@contextmanager
def a_server() -> Iterator[str]:
    """A server in a thread of its own: schemathesis asks without asyncio."""
    ready, stop, urls = threading.Event(), threading.Event(), list[str]()

    async def serve() -> None:
        async with serving(config=any_ports()) as served:
            urls.append(served.url(""))
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield urls[0]
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with a_server() as url:
        yield url


async def test_the_document_is_served_and_is_that_of_the_server() -> None:
    async with serving() as served:
        status, body = await served.get("/openapi.json")
    assert (status, body) == (200, DOCUMENT)


def test_all_that_the_document_lets_a_client_ask_for_is_known() -> None:
    chat = DOCUMENT["paths"]["/v1/chat/completions"]["post"]
    properties = chat["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(properties) <= FIELDS


def ask_for(url: str, path: str, method: str, mode: GenerationMode) -> list[int]:
    """Send what schemathesis makes of an operation, the same in every run; returns the statuses."""
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.config.update(base_url=url)
    statuses: list[int] = []

    @given(case=schema[path][method.upper()].as_strategy(generation_mode=mode))
    @settings(
        max_examples=40 if path == "/v1/chat/completions" else 8,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        response = case.call(timeout=30)
        statuses.append(response.status_code)
        assert response.status_code < 500, response.text
        if mode is GenerationMode.POSITIVE:
            case.validate_response(response, checks=AS_DOCUMENTED)

    ask()
    return statuses


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_the_document_allows_is_answered_as_it_says(url: str, path: str, method: str) -> None:
    statuses = ask_for(url, path, method, GenerationMode.POSITIVE)
    if path == "/v1/chat/completions":
        assert statuses.count(200) >= 10


@pytest.mark.parametrize(("path", "method"), [operation for operation in OPERATIONS if operation[0] != "/health"])
def test_what_the_document_forbids_makes_nothing_fail(url: str, path: str, method: str) -> None:
    statuses = ask_for(url, path, method, GenerationMode.NEGATIVE)
    assert any(status >= 400 for status in statuses)
