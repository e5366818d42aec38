"""Who gets in, what ends a connection, and with which code."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.runtime.helpers import profile
from tests.servers.helpers import any_ports
from tests.servers.ws.helpers import Requests, Served, said, serving
from voice_llm.errors import ConfigError
from voice_llm.runtime import Engine
from voice_llm.servers.edge import Edge
from voice_llm.servers.host import EngineHost
from voice_llm.servers.ws import WsServer
from voice_llm.testing import FakeBackend

pytestmark = pytest.mark.unit

KEYS = {"north-secret": "north", "south-secret": "south"}


async def refusal(served: Served, **options: Any) -> tuple[str, int]:
    """Code of the error and of the close frame, of a client that says nothing."""
    async with served.client(**options) as client:
        error, close = await client.refused()
        return error["code"], close.code


@asynccontextmanager
async def serving_host(host: EngineHost) -> AsyncIterator[Served]:
    """A server on an engine that is not ready, or not well."""
    host.start()
    edge = Edge.around(host, any_ports())
    server = WsServer(edge)
    try:
        yield Served(edge, server, await server.start(), Requests())
    finally:
        await server.stop()
        await edge.close()
        await host.close()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class TestKeys:
    async def test_key_in_the_header_lets_its_tenant_in(self) -> None:
        async with (
            serving(api_keys=KEYS) as served,
            served.client(additional_headers=bearer("north-secret")) as client,
        ):
            await client.start()
            assert said(await client.turn("Hello")) == "You said Hello. That makes 1."

    async def test_key_of_a_browser_comes_as_a_subprotocol_and_is_never_sent_back(self) -> None:
        offered = [Subprotocol("voice-llm.v1"), Subprotocol("bearer.south-secret")]
        async with serving(api_keys=KEYS) as served, served.client(subprotocols=offered) as client:
            assert client.connection.subprotocol == "voice-llm.v1"
            response = client.connection.response
            assert response is not None
            assert "south-secret" not in str(response.headers)
            await client.start()

    @pytest.mark.parametrize("headers", [{}, bearer("unknown"), {"Authorization": "Basic eDp5"}])
    async def test_no_key_or_an_unknown_one_is_unauthenticated(self, headers: dict[str, str]) -> None:
        async with serving(api_keys=KEYS) as served:
            assert await refusal(served, additional_headers=headers) == ("unauthenticated", 4401)
        assert served.requests.ended == [("ws", "unauthenticated")]

    async def test_key_for_another_tenant_than_the_header_s_is_forbidden(self) -> None:
        async with serving(api_keys=KEYS) as served:
            headers = bearer("north-secret") | {"x-tenant-id": "south"}
            assert await refusal(served, additional_headers=headers) == ("forbidden", 4403)

    async def test_two_tenant_headers_are_refused(self) -> None:
        async with serving() as served:
            headers = [("x-tenant-id", "a"), ("x-tenant-id", "b")]
            assert await refusal(served, additional_headers=headers) == ("invalid_request", 4400)

    async def test_token_of_a_call_is_of_no_use_to_another_tenant(self) -> None:
        async with serving(api_keys=KEYS) as served:
            async with served.client(additional_headers=bearer("north-secret")) as client:
                token = (await client.start())["resume_token"]
            query = f"?resume_token={token}"
            assert await refusal(served, query=query, additional_headers=bearer("south-secret")) == ("not_found", 4404)


class TestHandshake:
    @pytest.mark.parametrize(
        "path", ["/", "/v1/calls", "/v1/calls/", "/v1/calls/a/b", "/v2/calls/a", "/v1/calls/%FF", "/v1/calls/?x=1"]
    )
    async def test_unknown_path_is_a_404(self, path: str) -> None:
        async with serving() as served:
            with pytest.raises(InvalidStatus) as e:
                await connect(f"ws://127.0.0.1:{served.port}{path}")
            assert e.value.response.status_code == 404

    async def test_page_of_another_site_is_kept_out(self) -> None:
        async with serving() as served:
            with pytest.raises(InvalidStatus) as e:
                await connect(served.url(), origin=Origin("https://elsewhere.example"))
            assert e.value.response.status_code == 403

    async def test_page_that_is_configured_gets_in(self) -> None:
        async with serving(cors_origins=("https://desk.example",)) as served:
            async with served.client(origin=Origin("https://desk.example")) as client:
                await client.start()
            async with served.client("c2") as client:
                await client.start()
            with pytest.raises(InvalidStatus):
                await connect(served.url(), origin=Origin("https://elsewhere.example"))

    async def test_subprotocol_that_is_not_ours_is_not_selected(self) -> None:
        async with serving() as served, served.client(subprotocols=[Subprotocol("chat")]) as client:
            assert client.connection.subprotocol is None
            await client.start()

    async def test_messages_are_not_compressed(self) -> None:
        async with serving() as served, served.client() as client:
            assert client.connection.protocol.extensions == []

    async def test_plain_http_is_told_to_upgrade(self) -> None:
        async with serving() as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"GET /v1/calls/a HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readline()).split()[1] == b"426"
            writer.close()

    async def test_port_that_is_taken_is_named(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError, match=f"ws_port.*{port}") as e:
                async with serving(ws_port=port):
                    pass
            assert e.value.param == "ws_port"


class TestClosing:
    async def test_call_too_many_is_told_to_try_again(self) -> None:
        async with serving(max_calls=1) as served, served.call("first"):
            async with served.client("second") as client:
                await client.send("start")
                error, close = await client.refused()
            assert (error["code"], close.code) == ("at_capacity", 1013)
            assert error["retry_after_s"] > 0
            assert f"retry after {error['retry_after_s']:g} s" in close.reason

    async def test_call_while_draining_is_told_to_go_elsewhere(self) -> None:
        async with serving() as served:
            await served.edge.host.drain(0)
            async with served.client() as client:
                await client.send("start")
                error, close = await client.refused()
            assert (error["code"], close.code) == ("draining", 1012)
            assert error["retry_after_s"] > 0

    async def test_call_while_loading_is_told_to_wait(self) -> None:
        async def load() -> Engine:
            await asyncio.Event().wait()
            raise AssertionError

        async with serving_host(EngineHost(load, profile_name="test")) as served, served.client() as client:
            await client.send("start")
            error, close = await client.refused()
            assert (error["code"], close.code) == ("loading", 1012)

    async def test_profile_that_is_not_served_is_not_found(self) -> None:
        async with serving() as served, served.client() as client:
            await client.send("start", profile="another")
            error, close = await client.refused()
            assert (error["code"], close.code) == ("not_found", 4404)

    async def test_garbage_first_ends_the_connection(self) -> None:
        async with serving() as served, served.client() as client:
            await client.connection.send("garbage")
            error, close = await client.refused()
            assert (error["code"], close.code) == ("invalid_request", 4400)

    async def test_binary_message_ends_the_connection_and_keeps_the_call(self) -> None:
        async with serving() as served:
            async with served.call() as client:
                await client.connection.send(b"\x00\x01")
                error, close = await client.refused()
                assert (error["code"], close.code) == ("invalid_request", 4400)
            assert len(served.edge.conversations) == 1

    async def test_message_over_the_limit_ends_the_connection_and_keeps_the_call(self) -> None:
        async with serving(max_request_bytes=2048) as served:
            async with served.call() as client:
                await client.connection.send(json.dumps({"type": "partial", "text": "x" * 4096}))
                assert (await client.closed()).code == 1009
            assert len(served.edge.conversations) == 1
        assert served.requests.ended == [("ws", "too_large")]

    async def test_invalid_utf8_ends_the_connection(self) -> None:
        async with serving() as served, served.call() as client:
            await client.connection.send(b"\xff\xfe", text=True)
            assert (await client.closed()).code == 1007

    async def test_failure_inside_says_nothing_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with serving() as served:

            def explode(**_: object) -> None:
                raise RuntimeError("a secret detail")

            monkeypatch.setattr(type(served.edge.authenticator), "by_key", lambda self, **_: explode())
            async with served.client() as client:
                error, close = await client.refused()
            assert (error["code"], close.code) == ("internal", 1011)
            assert "secret" not in f"{error}{close}"

    async def test_dead_engine_ends_the_call_without_a_reason(self) -> None:
        host = EngineHost(lambda: Engine.start(FakeBackend(), profile()), profile_name="test")
        async with serving_host(host) as served:
            engine = await host.wait_ready()
            async with served.call() as client:
                await engine.close()
                await client.send("turn", turn_id="t1", text="Hello")
                error, close = await client.refused()
                assert (error["code"], close.code) == ("internal", 1011)
                assert "engine failed" in error["message"]

    async def test_stop_tells_clients_to_come_back(self) -> None:
        async with serving() as served, served.call() as client:
            stopping = asyncio.create_task(served.server.stop())
            assert (await client.closed()).code == 1012
            await stopping
            with pytest.raises(ConnectionRefusedError):
                await connect(served.url())

    async def test_stop_lets_a_call_end_within_the_grace(self) -> None:
        async with serving() as served, served.call() as client:
            stopping = asyncio.create_task(served.server.stop(grace_s=30))
            await asyncio.sleep(0)
            assert said(await client.turn("Bye")) == "You said Bye. That makes 1."
            await client.send("end")
            await client.expect("ended")
            assert (await client.closed()).code == 1000
            await stopping


class TestSlowClients:
    async def test_client_that_does_not_read_is_dropped_and_others_are_not_held_up(self) -> None:
        async with serving(stalled_after_s=0.3) as served, served.call("good") as good:
            narrow = socket.socket()
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            narrow.connect(("127.0.0.1", served.port))
            async with served.client("bad", max_queue=1, sock=narrow, close_timeout=0.1) as bad:
                token = (await bad.start())["resume_token"]
                # Each is answered by an error that nobody reads, until nothing fits any more.
                flood = asyncio.create_task(send_for_ever(bad.connection.send))
                turns = 0
                while not served.requests.ended:
                    turns += 1
                    events = await good.turn("Hi", f"t{turns}")
                    assert events[-1]["finish_reason"] == "stop"
                    await asyncio.sleep(0.02)
                flood.cancel()
                await asyncio.gather(flood, return_exceptions=True)
                bad.connection.transport.abort()
            assert served.requests.ended[0] == ("ws", "slow_consumer")
            async with served.client("bad", query=f"?resume_token={token}", close_timeout=0.1) as again:
                await again.expect("ready")

    async def test_handshake_that_drips_holds_nobody_up(self) -> None:
        async with serving() as served:
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"GET /v1/calls/a HT")
            await writer.drain()
            async with served.call() as client:
                await client.turn("Hello")
            writer.close()


async def send_for_ever(send: Any) -> None:
    while True:
        await send('{"type": "' + "x" * 60 + '"}')


async def test_log_has_no_text_of_the_call_and_no_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with (
        serving(api_keys=KEYS) as served,
        served.client(additional_headers=bearer("north-secret")) as client,
    ):
        await client.start()
        await client.turn("My address is Elm Street")
        await client.connection.send("My address is Elm Street")
        await client.expect("error")
    written = "\n".join(r.getMessage() for r in caplog.records if not r.name.startswith("websockets.client"))
    assert "Elm Street" not in written
    assert "north-secret" not in written
