"""Probes: how a server's interfaces are, asked one by one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from ..errors import VoiceLLMError
from .client import UnreachableError, require
from .endpoints import Endpoints
from .exit_codes import ExitCode

__all__ = ["Interface", "InterfaceOption", "Probe", "exit_code_of_probes", "probe_all"]

_HEALTHY: Final = "healthy"
_UNREACHABLE: Final = "unreachable"


class Interface(StrEnum):
    """Which of the server's interfaces are asked."""

    HTTP = "http"
    GRPC = "grpc"
    BOTH = "both"


InterfaceOption = Annotated[
    Interface, typer.Option(help="Which interfaces to ask; all of them must be healthy.", rich_help_panel="Server")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How one interface is.

    Attributes:
        state: ``"healthy"``, ``"unreachable"``, or what the server says of itself.
        detail: For people.
        report: What ``/health`` answers.
    """

    interface: Interface
    endpoint: str
    state: str
    detail: str = ""
    took_ms: float = 0.0
    report: dict[str, Any] | None = None

    @property
    def healthy(self) -> bool:
        """Whether calls can be made."""
        return self.state == _HEALTHY

    @property
    def reachable(self) -> bool:
        """Whether a server answers."""
        return self.state != _UNREACHABLE

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        fields: dict[str, Any] = {
            "interface": self.interface.value,
            "endpoint": self.endpoint,
            "state": self.state,
            "healthy": self.healthy,
            "took_ms": round(self.took_ms, 1),
        }
        fields |= {"detail": self.detail} if self.detail else {}
        return fields if self.report is None else fields | {"health": self.report}

    def __str__(self) -> str:
        return f"{self.interface.value} {self.endpoint}: {self.detail if not self.reachable else self.state}"


async def probe_all(
    endpoints: Endpoints, interface: Interface, *, timeout_s: float, clock: Callable[[], float] = time.monotonic
) -> list[Probe]:
    """Ask the interfaces, at the same time.

    Raises:
        ConfigError: A library or a TLS file is missing.
    """
    asked = [one for one in (Interface.HTTP, Interface.GRPC) if interface in (one, Interface.BOTH)]
    return list(await asyncio.gather(*(_probe(endpoints, one, timeout_s, clock) for one in asked)))


async def _probe(endpoints: Endpoints, interface: Interface, timeout_s: float, clock: Callable[[], float]) -> Probe:
    is_http = interface is Interface.HTTP
    endpoint = endpoints.http if is_http else endpoints.grpc
    state, detail, report = _UNREACHABLE, "", None
    library = require("http_client" if is_http else "grpc_client")
    asked_s = clock()
    try:
        if is_http:
            status, report = await library.get_health(endpoints, timeout_s)
            state, detail = _state(status, report), _detail(report)
        else:
            async with library.GrpcClient(endpoints) as client:
                state = await client.health(timeout_s)
    except UnreachableError as e:
        detail = e.why
    except VoiceLLMError as e:
        if e.code == "invalid_request":
            raise
        state, detail = e.code, str(e)
    took_ms = (clock() - asked_s) * 1e3
    return Probe(interface=interface, endpoint=endpoint, state=state, detail=detail, took_ms=took_ms, report=report)


def exit_code_of_probes(probes: Sequence[Probe]) -> ExitCode:
    """Return ``DONE`` where all are healthy, ``FAILED`` where one is not reached, else ``NOT_READY``."""
    if not all(probe.reachable for probe in probes):
        return ExitCode.FAILED
    return ExitCode.DONE if all(probe.healthy for probe in probes) else ExitCode.NOT_READY


def _state(status: int, report: dict[str, Any]) -> str:
    said = str(report["status"])
    return said if (status == 200) == (said == _HEALTHY) else f"unhealthy ({said}, HTTP {status})"


def _detail(report: dict[str, Any]) -> str:
    parts = [str(report["current_profile"])] if report.get("current_profile") else []
    capacity = report.get("capacity")
    if isinstance(capacity, dict) and {"available", "total"} <= capacity.keys():
        parts.append(f"{capacity['available']} of {capacity['total']} calls free")
    return ", ".join(parts)
