"""Connecting: to a server that is there, that is loading, that is not there, and that wants a certificate."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc
import pytest
import trustme

from tests.runtime.helpers import profile, read_text, user
from tests.servers.helpers import any_ports, edge_around
from voice_llm.config import TlsFiles
from voice_llm.errors import ConfigError, EngineDeadError, ForbiddenError, LoadingError
from voice_llm.remote import RemoteEngine, connect_from_environment, tls_from_environment
from voice_llm.runtime import Engine
from voice_llm.servers.edge import Edge
from voice_llm.servers.host import EngineHost
from voice_llm.testing import FakeBackend

from .helpers import serving

pytestmark = pytest.mark.unit


def nowhere() -> str:
    """A port of this machine on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


async def test_where_no_server_is_the_error_says_where_it_was_looked_for() -> None:
    endpoint = nowhere()
    with pytest.raises(EngineDeadError, match=endpoint):
        await RemoteEngine.connect(endpoint, timeout_s=0.1)


async def test_another_kind_of_server_is_named_as_such() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(ConfigError, match="EngineService"):
        await RemoteEngine.connect(f"127.0.0.1:{port}")
    await server.stop(None)


async def test_a_server_that_is_loading_is_waited_for() -> None:
    loaded = asyncio.Event()

    async def load() -> Engine:
        await loaded.wait()
        return await Engine.start(FakeBackend(), profile())

    host = EngineHost(load, profile_name="test")
    host.start()
    edge = Edge.around(host, any_ports())
    async with serving(edge) as endpoint:
        with pytest.raises(LoadingError) as raised:
            await RemoteEngine.connect(endpoint, timeout_s=0.1)
        assert raised.value.retry_after_s > 0
        connecting = asyncio.create_task(RemoteEngine.connect(endpoint, timeout_s=20))
        await asyncio.sleep(0.05)
        assert not connecting.done()
        loaded.set()
        async with await connecting as engine, engine.open_call() as call:
            assert await read_text(call.generate(user("Hi")))
    await edge.close()
    await host.close()


class Certificates:
    """An authority, a server's certificate and clients' certificates, as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(str(folder / "ca.pem"))

    def of(self, *names: str, common_name: str | None = None, issuer: trustme.CA | None = None) -> TlsFiles:
        made = (issuer or self._ca).issue_cert(*names, common_name=common_name)
        certificate, key = self._folder / f"{common_name}.pem", self._folder / f"{common_name}.key"
        for number, blob in enumerate(made.cert_chain_pems):
            blob.write_to_path(str(certificate), append=number > 0)
        made.private_key_pem.write_to_path(str(key))
        return TlsFiles(ca=self._folder / "ca.pem", certificate=certificate, key=key)


async def test_a_certificate_decides_the_tenant(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    config = any_ports(tls=certificates.of("127.0.0.1", common_name="server"))
    client = certificates.of("client.example", common_name="acme")
    stranger = certificates.of("client.example", common_name="eve", issuer=trustme.CA())
    async with edge_around(config=config) as edge, serving(edge) as endpoint:
        async with await RemoteEngine.connect(endpoint, tls=client) as engine:
            async with engine.open_call() as call:
                assert call.tenant == "acme"
                assert await read_text(call.generate(user("Hi")))
            with pytest.raises(ForbiddenError):
                await engine.open_call(tenant="other")
        for tls in (stranger, None):
            with pytest.raises(EngineDeadError, match=endpoint):
                await RemoteEngine.connect(endpoint, tls=tls, timeout_s=0.1)


async def test_a_tls_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    files = TlsFiles(ca=tmp_path / "ca.pem", certificate=tmp_path / "client.pem", key=tmp_path / "client.key")
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        await RemoteEngine.connect("127.0.0.1:1", tls=files)


async def test_the_environment_says_where_the_engine_is(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    config = any_ports(tls=certificates.of("127.0.0.1", common_name="server"))
    client = certificates.of("client.example", common_name="acme")
    async with edge_around(config=config) as edge, serving(edge) as endpoint:
        environment = {
            "VOICE_LLM_ENDPOINT": endpoint,
            "GRPC_TLS_CA_PATH": str(client.ca),
            "VOICE_LLM_CLIENT_CERT_PATH": str(client.certificate),
            "VOICE_LLM_CLIENT_KEY_PATH": str(client.key),
        }
        engine = await connect_from_environment(environment)
        assert engine is not None
        async with engine:
            assert engine.profile.name == "test"
    assert await connect_from_environment({}) is None


async def test_an_environment_that_names_half_of_it_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="VOICE_LLM_CLIENT_CERT_PATH and VOICE_LLM_CLIENT_KEY_PATH"):
        tls_from_environment({"GRPC_TLS_CA_PATH": "ca.pem"})
    with pytest.raises(ConfigError, match="VOICE_LLM_ENDPOINT is 'here'"):
        await connect_from_environment({"VOICE_LLM_ENDPOINT": "here"})
