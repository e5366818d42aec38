"""Mutual TLS: who is let in, in whose name, and files that cannot be used."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from tests.servers.grpc.gateway import Gateway, trailer
from tests.servers.helpers import any_ports, edge_around
from voice_llm.config import TlsFiles
from voice_llm.errors import ConfigError
from voice_llm.servers.grpc import GrpcServer
from voice_llm.servers.grpc.peer import is_local

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> TlsFiles:
    server = authority.issue_cert("localhost", common_name="server")
    paths = TlsFiles(tmp_path / "ca.pem", tmp_path / "server.pem", tmp_path / "server.key")
    authority.cert_pem.write_to_path(paths.ca)
    paths.certificate.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    server.private_key_pem.write_to_path(paths.key)
    return paths


@asynccontextmanager
async def secured(
    authority: trustme.CA, certificate: trustme.LeafCert | None, config: dict[str, Any]
) -> AsyncIterator[Gateway]:
    async with edge_around(config=any_ports(**config)) as edge:
        server = GrpcServer(edge)
        port = await server.start()
        chain = None if certificate is None else b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        key = None if certificate is None else certificate.private_key_pem.bytes()
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)
        target = f"localhost:{port}"
        try:
            async with grpc.aio.secure_channel(target, credentials) as channel:
                yield Gateway(channel, target)
        finally:
            await server.stop()


async def test_known_certificate_is_let_in_for_the_tenant_that_clients_gives_it(
    authority: trustme.CA, files: TlsFiles
) -> None:
    certificate = authority.issue_cert("gateway.example", common_name="Gateway 7")
    for name in ("Gateway 7", "gateway.example"):
        config = {"tls": files, "clients": {name: "acme"}}
        async with secured(authority, certificate, config) as gateway:
            assert (await gateway.ask("Hello?", tenant="acme")).text == "You said Hello?. That makes 1."


async def test_common_name_is_the_tenant_where_there_is_no_list_of_clients(
    authority: trustme.CA, files: TlsFiles
) -> None:
    certificate = authority.issue_cert("gateway.example", common_name="acme")
    async with secured(authority, certificate, {"tls": files}) as gateway:
        assert (await gateway.ask("Hello?", tenant="acme")).reason == "stop"
        error = await gateway.refusal(tenant="gateway.example")
    assert (error.code(), trailer(error, "error-code")) == (grpc.StatusCode.PERMISSION_DENIED, "forbidden")


async def test_alternative_name_is_no_tenant_where_there_is_no_list_of_clients(
    authority: trustme.CA, files: TlsFiles
) -> None:
    async with secured(authority, authority.issue_cert("acme"), {"tls": files}) as gateway:
        error = await gateway.refusal(tenant="acme")
    assert (error.code(), trailer(error, "error-code")) == (grpc.StatusCode.PERMISSION_DENIED, "forbidden")


async def test_name_that_is_not_in_clients_and_another_tenant_are_forbidden(
    authority: trustme.CA, files: TlsFiles
) -> None:
    config = {"tls": files, "clients": {"gateway-7": "acme"}}
    async with secured(authority, authority.issue_cert("x", common_name="gateway-8"), config) as gateway:
        unlisted = await gateway.refusal(tenant="acme")
    async with secured(authority, authority.issue_cert("x", common_name="gateway-7"), config) as gateway:
        other = await gateway.refusal(tenant="other")
        missing = await gateway.refusal(tenant=None)
    for error in (unlisted, other):
        assert (error.code(), trailer(error, "error-code")) == (grpc.StatusCode.PERMISSION_DENIED, "forbidden")
    assert missing.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("who", ["nobody", "stranger", "expired"])
async def test_nobody_a_stranger_and_an_expired_certificate_do_not_get_to_ask(
    authority: trustme.CA, files: TlsFiles, who: str
) -> None:
    past = datetime.datetime.now(tz=datetime.UTC) - datetime.timedelta(days=1)
    certificates = {
        "nobody": None,
        "stranger": trustme.CA().issue_cert("x", common_name="acme"),
        "expired": authority.issue_cert("x", common_name="acme", not_after=past),
    }
    async with secured(authority, certificates[who], {"tls": files}) as gateway:
        error = await gateway.refusal(tenant="acme", timeout_s=20)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert trailer(error, "error-code") is None


async def test_plain_text_is_not_understood_where_tls_is_asked_for(authority: trustme.CA, files: TlsFiles) -> None:
    async with (
        secured(authority, None, {"tls": files}) as gateway,
        grpc.aio.insecure_channel(gateway.target) as channel,
    ):
        error = await Gateway(channel, gateway.target).refusal(timeout_s=20)
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_wrong_key_and_missing_key_are_unauthenticated_and_the_right_one_is_let_in() -> None:
    async with edge_around(config=any_ports(api_keys={"s3cret": "acme"})) as edge:
        server = GrpcServer(edge)
        target = f"127.0.0.1:{await server.start()}"
        async with grpc.aio.insecure_channel(target) as channel:
            gateway = Gateway(channel, target)
            for metadata in ((), (("authorization", "Bearer wrong"),)):
                error = await gateway.refusal(tenant="acme", metadata=metadata)
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert trailer(error, "error-code") == "unauthenticated"
            right = (("authorization", "Bearer s3cret"),)
            assert (await gateway.ask("Hello?", tenant="acme", metadata=right)).reason == "stop"
        await server.stop()


@pytest.mark.parametrize(
    ("spoilt", "content", "text"),
    [
        ("ca", None, "cannot be read"),
        ("key", None, "cannot be read"),
        ("ca", "nonsense", "holds no certificates"),
        ("certificate", "nonsense", "no certificate and its key"),
        ("key", "other", "no certificate and its key"),
    ],
)
async def test_files_that_cannot_be_used_are_named(
    authority: trustme.CA, files: TlsFiles, spoilt: str, content: str | None, text: str
) -> None:
    path: Path = getattr(files, spoilt)
    spoil(path, content, authority)
    async with edge_around(config=any_ports(tls=files)) as edge:
        with pytest.raises(ConfigError, match=text) as caught:
            await GrpcServer(edge).start()
    assert str(path) in str(caught.value)


def spoil(path: Path, content: str | None, authority: trustme.CA) -> None:
    path.unlink()
    if content == "other":
        authority.issue_cert("y").private_key_pem.write_to_path(path)
    elif content is not None:
        path.write_text(content)


@pytest.mark.parametrize(
    ("peer", "loopback"),
    [
        ("ipv4:127.0.0.1:50000", True),
        ("ipv4:127.8.0.1:1", True),
        ("ipv6:[::1]:50000", True),
        ("ipv6:%5B::1%5D:50000", True),
        ("ipv6:[::ffff:127.0.0.1]:5", True),
        ("unix:", True),
        ("ipv4:10.0.0.1:50000", False),
        ("ipv6:[fe80::1%eth0]:5", False),
        ("ipv6:[::ffff:10.0.0.1]:5", False),
        ("127.0.0.1:50000", False),
        ("", False),
        ("ipv4:localhost:1", False),
    ],
)
def test_peers_of_this_machine_are_told_from_others(peer: str, loopback: bool) -> None:
    assert is_local(peer) is loopback
