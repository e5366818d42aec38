"""What the address of a peer tells."""

from __future__ import annotations

import pytest

from voice_llm.servers.addresses import is_loopback

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "::1%lo", "::ffff:127.0.0.1", "::ffff:127.0.0.1%1"])
def test_addresses_of_this_machine_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "fe80::1%eth0", "", "localhost", "127.0.0.1:80", "[::1]"]
)
def test_other_addresses_and_what_is_none_are_not(host: str) -> None:
    assert not is_loopback(host)
