"""ServerConfig: what is served with, and what it is refused for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voice_llm.config import ServerConfig, TlsFiles
from voice_llm.errors import ConfigError

pytestmark = pytest.mark.unit


def test_defaults_are_loopback_and_the_ports_of_the_contract() -> None:
    config = ServerConfig()
    assert config.host == "127.0.0.1"
    assert (config.http_port, config.grpc_port, config.metrics_port, config.ws_port) == (16070, 16071, 16072, 16073)
    assert (config.drain_s, config.resume_s, config.call_idle_s) == (30, 20, 120)
    assert (config.api_keys, config.tls, config.cors_origins) == (None, None, ())


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("http_port", -1, "a whole number from 0 to 65535"),
        ("grpc_port", 65536, "a whole number from 0 to 65535"),
        ("ws_port", 80.5, "a whole number"),
        ("ws_port", True, "a whole number"),
        ("metrics_port", "16072", "a whole number"),
        ("metrics_port", 16070, "a port other than http_port"),
        ("drain_s", -1, "a number of seconds from 0"),
        ("resume_s", float("nan"), "a number of seconds from 0"),
        ("call_idle_s", float("inf"), "a number of seconds from 1 to 86400"),
        ("call_idle_s", 0, "a number of seconds from 1 to 86400"),
        ("call_idle_s", 0.99, "a number of seconds from 1"),
        ("max_request_bytes", 1023, "from 1024"),
        ("max_messages", 0, "from 1"),
        ("max_reply_tokens", 1.5, "a whole number"),
        ("max_calls_per_tenant", 0, "a whole number from 1"),
        ("host", "", "an address"),
        ("host", "a b", "an address"),
        ("cors_origins", ("https://a.example/path",), "without a path"),
        ("cors_origins", ("https://A.example",), "in small letters"),
        ("cors_origins", ("https://a.example/",), "without a path"),
        ("cors_origins", ("a.example",), "scheme://host"),
        ("cors_origins", ("",), "scheme://host"),
    ],
)
def test_bad_value_is_refused_with_field_value_and_what_is_allowed(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig(**{name: value})
    assert str(caught.value).startswith(f"{name} is ")
    assert allowed in str(caught.value)
    assert caught.value.param == name


def test_any_number_of_ports_may_be_any_that_is_free() -> None:
    config = ServerConfig(http_port=0, grpc_port=0, metrics_port=0, ws_port=0)
    assert (config.http_port, config.grpc_port, config.metrics_port, config.ws_port) == (0, 0, 0, 0)


def test_origins_are_a_star_or_scheme_host_and_port() -> None:
    origins = ("*", "https://a.example", "http://localhost:3000", "http://[::1]:80")
    assert ServerConfig(cors_origins=origins).cors_origins == origins


@pytest.mark.parametrize("api_keys", [{}, {"s3cret": ""}, {"": "acme"}, {"s3cret ": "acme"}, {"s3crét": "acme"}])
def test_keys_that_are_none_are_refused_without_a_word_of_them(api_keys: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="api_keys must hold") as caught:
        ServerConfig(api_keys=api_keys)
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize("clients", [{}, {"": "acme"}, {"a": ""}, {"a": "b\n"}])
def test_clients_need_names_and_tenants(clients: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="clients must hold"):
        ServerConfig(clients=clients)


def test_production_needs_mutual_tls() -> None:
    with pytest.raises(ConfigError, match="mutual TLS"):
        ServerConfig(production=True)
    assert ServerConfig(production=True, tls=TlsFiles(Path("ca"), Path("cert"), Path("key"))).production


def test_repr_says_no_key() -> None:
    assert "s3cret" not in repr(ServerConfig(api_keys={"s3cret": "acme"}))


def test_replace_refuses_what_it_does_not_know_and_leaves_what_is_none() -> None:
    with pytest.raises(ConfigError, match="did you mean 'grpc_port'"):
        ServerConfig().replace(gprc_port=1)
    assert ServerConfig().replace(host=None, ws_port=1) == ServerConfig(ws_port=1)
