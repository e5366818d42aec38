"""What the address of a peer tells."""

from __future__ import annotations

import ipaddress

__all__ = ["is_loopback"]


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is an IP address of this machine alone; no where it is no address.

    An IPv6 address may have a scope (``::1%lo``), and hold an IPv4 one (``::ffff:127.0.0.1``).
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
