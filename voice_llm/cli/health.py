"""``voice-llm health``: whether a server can take calls, interface by interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from .client import consoles, print_json, run_client
from .endpoints import (
    DEFAULT_GRPC,
    DEFAULT_HTTP,
    ApiKeyOption,
    Endpoints,
    GrpcEndpointOption,
    HttpEndpointOption,
    TenantOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
)
from .exit_codes import ExitCode
from .options import JsonOption
from .probes import Interface, InterfaceOption, Probe, exit_code_of_probes, probe_all

__all__ = ["health", "show_health"]


def health(
    timeout_s: Annotated[float, typer.Option(help="How long to wait for an answer.", min=0.1, metavar="SECONDS")] = 5.0,
    interface: InterfaceOption = Interface.BOTH,
    as_json: JsonOption = False,
    http_endpoint: HttpEndpointOption = DEFAULT_HTTP,
    grpc_endpoint: GrpcEndpointOption = DEFAULT_GRPC,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tenant: TenantOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Show whether a server can take calls.

    Ends with 0 where it can, with 3 where it is not ready, and with 1 where it is not reached.
    """

    async def run() -> ExitCode:
        endpoints = Endpoints(
            grpc=grpc_endpoint,
            http=http_endpoint,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tenant=tenant,
            api_key=api_key,
        )
        return await show_health(endpoints, interface, timeout_s=timeout_s, as_json=as_json)

    run_client(run, as_json=as_json)


async def show_health(endpoints: Endpoints, interface: Interface, *, timeout_s: float, as_json: bool) -> ExitCode:
    """Ask the interfaces and print how they are.

    Raises:
        ConfigError: A library or a TLS file is missing.
    """
    probes = await probe_all(endpoints, interface, timeout_s=timeout_s)
    if as_json:
        for probe in probes:
            print_json(probe.as_json())
    else:
        _show(probes)
    return exit_code_of_probes(probes)


def _show(probes: Sequence[Probe]) -> None:
    out, err = consoles()
    out.print(_table_of(probes))
    if not any(probe.reachable for probe in probes):
        err.print("voice-llm: no server answers; start one with: voice-llm serve", style="red", markup=False)


def _table_of(probes: Sequence[Probe]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("interface", "endpoint", "state", ""):
        table.add_column(name, overflow="fold")
    table.add_column("ms", justify="right", no_wrap=True)
    for probe in probes:
        style = "green" if probe.healthy else "yellow" if probe.reachable else "red"
        state = f"[{style}]{probe.state}[/]"
        table.add_row(probe.interface.value, probe.endpoint, state, probe.detail, f"{probe.took_ms:.0f}")
    return table
