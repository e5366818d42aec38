"""Each row of the error table, as an HTTP client sees it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import openai
import pytest

from tests.runtime.helpers import GatedBackend, idle, profile
from tests.servers.helpers import any_ports
from voice_llm.errors import BackendError
from voice_llm.runtime import Engine
from voice_llm.servers.edge import Edge
from voice_llm.servers.host import EngineHost
from voice_llm.testing import FakeBackend

from .helpers import Seen, Served, on, said, serving

pytestmark = pytest.mark.unit

MESSAGES: list[Any] = [{"role": "user", "content": "Hi."}]


def shape(body: Any) -> tuple[str, str, str | None]:
    """Type, code and param of an error body; it has these fields, a message and no more."""
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "code", "param"}
    assert isinstance(body["error"]["message"], str)
    return body["error"]["type"], body["error"]["code"], body["error"]["param"]


async def test_an_invalid_request_is_a_bad_request_that_names_the_field() -> None:
    async with serving() as served:
        with pytest.raises(openai.BadRequestError) as caught:
            await served.openai.chat.completions.create(model="test", messages=MESSAGES, n=2)
        assert (caught.value.code, caught.value.param) == ("invalid_request", "n")
        status, body = await served.ask(said("Hi.", logprobs=True))
        assert (status, shape(body)) == (400, ("invalid_request_error", "invalid_request", "logprobs"))


async def test_what_only_the_prompt_shows_to_be_wrong_still_has_a_status_of_its_own() -> None:
    async with serving() as served:
        for stream in (False, True):
            status, body = await served.ask(said("Hi.", grammar="leaf ::= 1", stream=stream))
            assert (status, shape(body)) == (400, ("invalid_request_error", "invalid_request", "grammar"))
            status, body = await served.ask(said("word " * 1000, stream=stream))
            assert (status, shape(body)[1]) == (400, "context_too_long")


async def test_a_wrong_or_missing_key_is_an_authentication_error() -> None:
    async with serving(config=any_ports(api_keys={"right": "acme"}), key="wrong") as served:
        with pytest.raises(openai.AuthenticationError) as caught:
            await served.openai.chat.completions.create(model="test", messages=MESSAGES)
        assert caught.value.code == "unauthenticated"
        assert caught.value.response.headers["WWW-Authenticate"] == "Bearer"
        assert (await served.get("/v1/models"))[0] == 401


async def test_another_tenants_name_is_forbidden() -> None:
    async with serving(config=any_ports(api_keys={"right": "acme"}), key="right") as served:
        create = served.openai.chat.completions.create
        assert (await create(model="test", messages=MESSAGES)).choices
        assert (await create(model="test", messages=MESSAGES, extra_headers={"x-tenant-id": "acme"})).choices
        with pytest.raises(openai.PermissionDeniedError) as caught:
            await create(model="test", messages=MESSAGES, extra_headers={"x-tenant-id": "rival"})
        assert caught.value.code == "forbidden"


async def test_an_unknown_model_path_or_call_is_not_found() -> None:
    async with serving() as served:
        with pytest.raises(openai.NotFoundError) as caught:
            await served.openai.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        assert caught.value.code == "not_found"
        for path in ("/v1/models/gpt-4o", "/v1/nothing", "/"):
            status, body = await served.get(path)
            assert (status, shape(body)[1]) == (404, "not_found")
        async with served.http.delete(served.url("/v1/calls/none")) as response:
            assert (response.status, shape(await response.json())[1]) == (404, "not_found")


async def test_a_second_request_of_a_running_call_is_a_conflict() -> None:
    backend = GatedBackend()
    async with serving(backend) as served:
        backend.hold()
        first = asyncio.ensure_future(served.ask(said("Hi."), x_call_id="call-1"))
        await backend.held()
        status, body = await served.ask(said("Hi."), x_call_id="call-1")
        assert (status, shape(body)[1]) == (409, "call_busy")
        backend.release()
        assert (await first)[0] == 200


async def test_a_call_that_is_deleted_while_it_replies_ends_its_reply_with_an_error() -> None:
    backend = GatedBackend()
    async with serving(backend) as served:
        backend.hold(after_tokens=3)
        whole = asyncio.ensure_future(served.ask(said("Hi."), x_call_id="call-1"))
        await backend.held()
        deleting = asyncio.ensure_future(served.http.delete(served.url("/v1/calls/call-1")))
        while len(served.edge.soft_calls):
            await asyncio.sleep(0.005)
        backend.release()
        assert (await deleting).status == 204
        status, body = await whole
        assert (status, shape(body)[1]) == (409, "wrong_state")


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_is_refused_as_such(declared: bool) -> None:
    async with serving(config=any_ports(max_request_bytes=2048)) as served:
        data = b'{"messages": "' + b"x" * 4096 + b'"}'

        async def chunks() -> Any:
            for start in range(0, len(data), 256):
                yield data[start : start + 256]

        body: Any = data if declared else chunks()
        headers = {"Content-Type": "application/json"}
        async with served.http.post(served.url("/v1/chat/completions"), data=body, headers=headers) as response:
            assert (response.status, shape(await response.json())[1]) == (413, "too_large")
        assert (await served.ask(said("Hi.")))[0] == 200


async def test_a_body_that_is_no_plain_json_object_is_refused_and_stops_nothing() -> None:
    deep = b'{"messages":' + b"[" * 300_000 + b"]" * 300_000 + b"}"
    async with serving() as served:
        for data in (b"", b"hello", b"[]", b"null", b'{"n":NaN}', b'{"n":1e999}', b"\xff", b'{"a":"\\ud800"}', deep):
            headers = {"Content-Type": "application/json"}
            async with served.http.post(served.url("/v1/chat/completions"), data=data, headers=headers) as response:
                body = await response.json()
            assert (response.status, shape(body)) == (400, ("invalid_request_error", "invalid_request", None)), data[:9]
            assert body["error"]["message"].startswith("the body ")
        assert (await served.ask(said("İyi günler 😀")))[0] == 200


async def test_at_capacity_a_client_is_told_when_to_come_back() -> None:
    seen = Seen()
    async with serving(max_calls=1, observer=seen) as served:
        create = served.openai.chat.completions.create
        async with served.engine.open_call():
            with pytest.raises(openai.RateLimitError) as whole:
                await create(model="test", messages=MESSAGES)
            with pytest.raises(openai.RateLimitError) as streamed:
                await create(model="test", messages=MESSAGES, stream=True, extra_headers={"x-call-id": "call-1"})
        for caught in (whole, streamed):
            assert caught.value.code == "at_capacity"
            assert int(caught.value.response.headers["Retry-After"]) >= 1
        assert (await create(model="test", messages=MESSAGES, extra_headers={"x-call-id": "call-1"})).choices
    assert seen.refused == ["at_capacity"] * 2


async def test_a_tenants_own_bound_is_a_rate_limit() -> None:
    backend = GatedBackend()
    async with serving(backend, config=any_ports(max_calls_per_tenant=1)) as served:
        backend.hold()
        first = asyncio.ensure_future(served.ask(said("Hi."), x_tenant_id="acme"))
        await backend.held()
        status, body = await served.ask(said("Hi."), x_tenant_id="acme")
        assert (status, shape(body)[1]) == (429, "at_capacity")
        backend.release()
        assert (await first)[0] == 200
        assert (await served.ask(said("Hi."), x_tenant_id="acme"))[0] == 200


async def test_while_the_model_is_loaded_and_when_the_server_ends_a_client_is_told_to_come_back() -> None:
    loaded, seen = asyncio.Event(), Seen()

    async def load() -> Engine:
        await loaded.wait()
        return await Engine.start(FakeBackend(), profile())

    host = EngineHost(load, profile_name="test", observer=seen)
    host.start()
    edge = Edge.around(host, any_ports())
    try:
        async with on(edge) as served:
            await expect_unavailable(served, "loading")
            loaded.set()
            await host.wait_ready()
            assert (await served.ask(said("Hi.")))[0] == 200
            assert await host.drain(1)
            await expect_unavailable(served, "draining")
    finally:
        await edge.close()
        await host.close()
    assert seen.refused == ["loading", "draining"]


async def expect_unavailable(served: Served, code: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        await served.openai.chat.completions.create(model="test", messages=MESSAGES)
    assert (caught.value.status_code, caught.value.code) == (503, code)
    assert int(caught.value.response.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_internal_error_says_nothing_of_what_is_inside(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    backend = FakeBackend()
    async with serving(backend) as served:
        backend.fail_next(BackendError("the GPU at 0xdeadbeef fell off"))
        status, body = await served.ask(said("A secret question.", stream=stream))
        assert (status, shape(body)) == (500, ("server_error", "internal", None))
        assert "0xdeadbeef" not in str(body)
        assert (await served.ask(said("Hi.")))[0] == 200
    assert "secret question" not in caplog.text


async def test_an_unforeseen_error_is_internal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("caller text")

    monkeypatch.setattr("voice_llm.servers.http.chat.parse_chat_request", fail)
    async with serving() as served:
        status, body = await served.ask(said("Hi."))
        assert (status, shape(body)) == (500, ("server_error", "internal", None))
        assert "caller text" not in str(body)


async def test_errors_of_http_itself_have_the_same_body() -> None:
    async with serving() as served:
        async with served.http.put(served.url("/v1/chat/completions")) as response:
            assert (response.status, shape(await response.json())[1]) == (405, "invalid_request")
            assert response.headers["Allow"] == "POST"
        async with served.http.post(served.url("/v1/chat/completions"), data=b"hello") as response:
            assert (response.status, shape(await response.json())[2]) == (400, "content-type")
        for data, headers in ((b"{", {}), (b"not gzip", {"Content-Encoding": "gzip"})):
            async with served.http.post(
                served.url("/v1/chat/completions"), data=data, headers={"Content-Type": "application/json"} | headers
            ) as response:
                assert (response.status, shape(await response.json())[1]) == (400, "invalid_request")


async def test_a_call_id_that_cannot_be_one_is_refused() -> None:
    async with serving() as served:
        for call_id in ("x" * 129, "caf\u00ad", ""):
            status, body = await served.ask(said("Hi."), x_call_id=call_id)
            assert (status, shape(body)) == (400, ("invalid_request_error", "invalid_request", "x-call-id"))
        assert (await served.ask(said("Hi."), x_call_id="x" * 128))[0] == 200
        async with served.http.delete(served.url("/v1/calls/" + "x" * 129)) as response:
            assert response.status == 400


async def test_a_message_quotes_no_more_than_a_line_of_what_was_sent() -> None:
    async with serving() as served:
        status, body = await served.ask(said("Hi.", **{"x" * 5000: 1}))
        assert status == 400
        assert len(body["error"]["message"]) == 500
        assert len(body["error"]["param"]) == 128


async def test_requests_are_counted_by_their_codes_and_logged_without_what_was_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = Seen()
    caplog.set_level(logging.INFO)
    async with serving(observer=seen) as served:
        await served.ask(said("A secret question."), x_call_id="secret-call")
        await served.ask(said("A secret question.", n=2))
        await served.get("/v1/secret?key=secret")
        await served.get("/health")
        await idle(served.engine)
    assert seen.ended == [("http", "ok"), ("http", "invalid_request"), ("http", "not_found")]
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("voice_llm.servers.http")]
    assert len(ours) == 3
    assert "POST /v1/chat/completions: ok, status 200" in ours[0]
    assert "secret" not in caplog.text
