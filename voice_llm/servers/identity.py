"""Identity: who is asking."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is asking, as far as the edge could make sure of it.

    Attributes:
        tenant: Whose calls these are; nothing is shared between tenants.
        subject: Name of the key or certificate, for logs; ``"anonymous"`` where there is none.
    """

    tenant: str
    subject: str = "anonymous"
