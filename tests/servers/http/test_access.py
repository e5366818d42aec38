"""Who may ask, from where, and what web pages may do."""

from __future__ import annotations

import pytest

from tests.servers.helpers import any_ports
from voice_llm.testing import FakeBackend

from .helpers import Served, said, serving

pytestmark = pytest.mark.unit

PAGE = "https://desk.example.org"


async def preflight(served: Served, origin: str) -> tuple[int, dict[str, str]]:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    async with served.http.options(served.url("/v1/chat/completions"), headers=headers) as response:
        return response.status, dict(response.headers)


async def test_no_web_page_is_let_in_unless_configured() -> None:
    async with serving() as served:
        status, headers = await preflight(served, PAGE)
        assert status == 405
        assert not [name for name in headers if name.lower().startswith("access-control")]
        async with served.http.get(served.url("/v1/models"), headers={"Origin": PAGE}) as response:
            assert not [name for name in response.headers if name.lower().startswith("access-control")]


async def test_a_page_that_is_let_in_asks_without_a_key_and_reads_replies_streams_and_errors() -> None:
    async with serving(config=any_ports(cors_origins=(PAGE,), api_keys={"right": "acme"})) as served:
        status, headers = await preflight(served, PAGE)
        assert status == 204
        assert headers["Access-Control-Allow-Origin"] == PAGE
        assert headers["Access-Control-Allow-Headers"] == "authorization,content-type,x-stainless-os"
        assert {"GET", "POST", "DELETE"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
        for key, stream, status in (("right", False, 200), ("right", True, 200), ("wrong", False, 401)):
            async with served.http.post(
                served.url("/v1/chat/completions"),
                json=said("Hi.", stream=stream),
                headers={"Origin": PAGE, "Authorization": f"Bearer {key}"},
            ) as response:
                assert response.status == status
                assert response.headers["Access-Control-Allow-Origin"] == PAGE
                assert "x-request-id" in response.headers["Access-Control-Expose-Headers"]
                assert "Origin" in response.headers["Vary"]


async def test_another_page_is_not_let_in_beside_it() -> None:
    async with serving(config=any_ports(cors_origins=(PAGE,))) as served:
        status, headers = await preflight(served, "https://evil.example.org")
        assert status == 405
        assert "Access-Control-Allow-Origin" not in headers


async def test_a_page_cannot_send_without_asking_first() -> None:
    backend = FakeBackend()
    async with serving(backend) as served:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            async with served.http.post(
                served.url("/v1/chat/completions"),
                data=b'{"messages":[{"role":"user","content":"Hi."}]}',
                headers={"Content-Type": kind},
            ) as response:
                assert response.status == 400
    assert backend.counters.sampled_tokens == 0


async def test_a_key_decides_the_tenant() -> None:
    keys = {"key-a": "acme", "key-b": "rival"}
    async with serving(config=any_ports(api_keys=keys)) as served:
        body = said("Hi.")
        status, _ = await served.ask(body, authorization="Bearer key-a", x_call_id="call-1")
        assert status == 200
        for key, expected in (("key-b", 404), ("key-a", 204)):
            async with served.http.delete(
                served.url("/v1/calls/call-1"), headers={"Authorization": f"Bearer {key}"}
            ) as response:
                assert response.status == expected


async def test_nothing_but_health_is_answered_without_a_key() -> None:
    async with serving(config=any_ports(api_keys={"right": "acme"})) as served:
        for path in ("/v1/models", "/v1/profiles", "/openapi.json", "/v1/nothing"):
            assert (await served.get(path))[0] == 401
            assert (await served.get(path, authorization="Bearer wrong"))[0] == 401
        assert (await served.get("/health"))[0] == 200


async def test_traces_are_taken_over_and_passed_on() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with serving() as served:
        for stream in (False, True):
            async with served.http.post(
                served.url("/v1/chat/completions"),
                json=said("Hi.", stream=stream),
                headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"},
            ) as response:
                assert response.headers["x-trace-id"] == trace
                assert trace in response.headers["traceparent"]
                assert response.headers["x-request-id"].startswith("req-")
