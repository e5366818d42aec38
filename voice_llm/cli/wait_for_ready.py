"""``voice-llm wait-for-ready``: wait until a server can take calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer
from rich.status import Status

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
from .probes import Interface, InterfaceOption, Probe, probe_all

__all__ = ["wait", "wait_for_ready"]

_ASK_EVERY_S: Final = 0.25
_ANSWER_WITHIN_S: Final = 5.0


def wait_for_ready(
    timeout_s: Annotated[float, typer.Option(help="How long to wait at most.", min=0, metavar="SECONDS")] = 60.0,
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
    """Wait until a server can take calls; ends with 3 where it cannot in time."""

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
        return await wait(endpoints, interface, timeout_s=timeout_s, as_json=as_json)

    run_client(run, as_json=as_json)


async def wait(
    endpoints: Endpoints,
    interface: Interface,
    *,
    timeout_s: float,
    as_json: bool,
    clock: Callable[[], float] = time.monotonic,
) -> ExitCode:
    """Wait until the interfaces are healthy and print how that went.

    Raises:
        ConfigError: A library or a TLS file is missing.
    """
    out, err = consoles()
    asked_s = clock()
    with err.status("waiting") as status:
        if as_json or not err.is_terminal:
            status.stop()
        probes = await _until_healthy(endpoints, interface, timeout_s, lambda p: _tell(status, p), clock)
    took_s = clock() - asked_s
    ready = all(probe.healthy for probe in probes)
    if as_json:
        interfaces = [probe.as_json() for probe in probes]
        print_json({"ready": ready, "took_s": round(took_s, 3), "interfaces": interfaces})
    elif ready:
        out.print(f"ready after {took_s:.1f} s", markup=False)
    else:
        last = "; ".join(str(probe) for probe in probes if not probe.healthy)
        err.print(f"voice-llm: not ready after {took_s:.0f} s: {last}", style="red", markup=False)
    return ExitCode.DONE if ready else ExitCode.NOT_READY


async def _until_healthy(
    endpoints: Endpoints,
    interface: Interface,
    timeout_s: float,
    on_probes: Callable[[Sequence[Probe]], None],
    clock: Callable[[], float],
) -> list[Probe]:
    """Ask until all interfaces are healthy or the time is over; returns the last answers."""
    until_s = clock() + timeout_s
    while True:
        left_s = until_s - clock()
        probes = await probe_all(endpoints, interface, timeout_s=max(0.1, min(_ANSWER_WITHIN_S, left_s)))
        on_probes(probes)
        left_s = until_s - clock()
        if left_s <= 0 or all(probe.healthy for probe in probes):
            return probes
        await asyncio.sleep(min(_ASK_EVERY_S, left_s))


def _tell(status: Status, probes: Sequence[Probe]) -> None:
    waiting = next((probe for probe in probes if not probe.healthy), None)
    if waiting is not None:
        status.update(f"waiting for {waiting}")
