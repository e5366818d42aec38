"""``voice-llm simulate``: virtual callers hold the calls of scenario files, and a report says how it sounded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from ..config.engine import AdmissionRule
from ..errors import VoiceLLMError
from .client import consoles, print_json, show_error
from .endpoints import ApiKeyOption, TenantOption, TlsCaOption, TlsCertOption, TlsKeyOption
from .exit_codes import ExitCode, exit_code_of
from .options import (
    DEFAULT_PROFILE,
    ContextOption,
    EngineOptions,
    GpuLayersOption,
    JsonOption,
    KvOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
)
from .simulate_run import SimulateRun
from .simulate_target import TargetOptions

__all__ = ["simulate"]

_CALLERS: Final = "Callers"
_REPORT: Final = "Report"
_TARGET: Final = "Target"


def simulate(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(help="Scenario files, folders of them, or names of those that are built in, or all."),
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="Show the scenarios that are built in.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a scenario, for editors.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check the scenarios.")] = False,
    calls: Annotated[
        int, typer.Option(help="Callers on the phone at once.", min=1, metavar="N", rich_help_panel=_CALLERS)
    ] = 4,
    duration_s: Annotated[
        float | None,
        typer.Option(
            "--duration-s",
            help="How long callers dial; without, until each scenario and each caller had a call.",
            min=1,
            metavar="S",
            rich_help_panel=_CALLERS,
        ),
    ] = None,
    arrivals: Annotated[
        str | None,
        typer.Option(
            help="Callers who dial whoever is on the phone: poisson:PER_MINUTE, ramp:FROM:TO (per minute), "
            "bursts:N:EVERY_S or spread:N (N calls at random moments). Needs --duration-s.",
            metavar="HOW",
            rich_help_panel=_CALLERS,
        ),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            help="Persons are so many times as fast. Latencies mean something at 1 only.",
            min=0.1,
            metavar="X",
            rich_help_panel=_CALLERS,
        ),
    ] = 1.0,
    seed: Annotated[
        int, typer.Option(help="The same seed, the same callers.", metavar="N", rich_help_panel=_CALLERS)
    ] = 0,
    target: Annotated[
        str,
        typer.Option(
            help="engine: in this process. virtual: the engine in virtual time, an hour in seconds. grpc://HOST:PORT, "
            "ws://HOST:PORT: our server. http://HOST:PORT/v1: any OpenAI server. audio:ws://HOST:PORT/PATH: a bot's "
            "telephony WebSocket, with a synthesised voice.",
            metavar="TARGET",
            rich_help_panel=_TARGET,
        ),
    ] = "engine",
    model_name: Annotated[
        str | None,
        typer.Option(
            help="Model to ask an OpenAI server for; the first of its list.", metavar="NAME", rich_help_panel=_TARGET
        ),
    ] = None,
    call_ids: Annotated[
        bool,
        typer.Option(
            "--call-ids", help="Name calls to an http:// server of ours (x-call-id).", rich_help_panel=_TARGET
        ),
    ] = False,
    costs: Annotated[
        Path | None,
        typer.Option(help="Step costs for virtual time, from voice-llm plan.", metavar="FILE", rich_help_panel=_TARGET),
    ] = None,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout-s", help="Longest silence of a server.", min=1, metavar="S", rich_help_panel=_TARGET),
    ] = 60.0,
    sequences: Annotated[
        int | None,
        typer.Option(
            help="Calls that the engine in process, or in virtual time, takes at once; as many as callers, or with "
            "--arrivals the profile's number.",
            min=1,
            metavar="N",
            rich_help_panel=_TARGET,
        ),
    ] = None,
    tenant: TenantOption = None,
    api_key: ApiKeyOption = None,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help='What has to hold, such as "first_chunk_p95<=0.8s,gaps<=1%"; otherwise the command ends with 4.',
            metavar="BOUNDS",
            rich_help_panel=_REPORT,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write report.json and report.html to this folder.", metavar="DIR", rich_help_panel=_REPORT),
    ] = None,
    compare_with: Annotated[
        Path | None,
        typer.Option("--compare", help="Show what changed since another run.", metavar="JSON", rich_help_panel=_REPORT),
    ] = None,
    as_json: JsonOption = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    model: ModelOption = None,
    context_per_call: ContextOption = None,
    threads: ThreadsOption = None,
    gpu_layers: GpuLayersOption = None,
    kv: KvOption = None,
    admission: Annotated[
        AdmissionRule,
        typer.Option(
            help="Take every caller for whom there is a sequence (limit), or refuse those who would make first words "
            "late for everyone, as serve does (forecast).",
            rich_help_panel=_TARGET,
        ),
    ] = "limit",
) -> None:
    """Let virtual callers call: they speak, think, listen, break in and hang up as people do.

    Ends with 0 if all went well, 1 if a call failed or an expectation was missed, 4 if the objective was.
    """
    try:
        if schema or list_them or check:
            _tell(scenarios or [], schema=schema, list_them=list_them, as_json=as_json)
            return
        code = SimulateRun(
            names=scenarios or [],
            calls=calls,
            duration_s=duration_s,
            arrivals=arrivals,
            speed=speed,
            seed=seed,
            objective=objective,
            folder=report,
            compare_with=compare_with,
            as_json=as_json,
            target=TargetOptions(
                text=target,
                engine=EngineOptions(
                    profile=profile,
                    model=model,
                    calls=sequences or (calls if arrivals is None else None),
                    context_per_call=context_per_call,
                    threads=threads,
                    gpu_layers=gpu_layers,
                    kv=kv,
                    admission=admission,
                ),
                api_key=api_key,
                tls_ca=tls_ca,
                tls_cert=tls_cert,
                tls_key=tls_key,
                tenant=tenant,
                model_name=model_name,
                call_ids=call_ids,
                costs=costs,
                timeout_s=timeout_s,
                seed=seed,
            ),
        ).run()
    except VoiceLLMError as error:
        show_error(error, as_json=as_json)
        code = exit_code_of(error)
    except KeyboardInterrupt:
        code = ExitCode.FAILED
    raise typer.Exit(code)


def _tell(names: list[str], *, schema: bool, list_them: bool, as_json: bool) -> None:
    """Say what scenarios there are, what one may hold, or that these are well written."""
    # The simulator's libraries are imported only where they are used: other commands start without them.
    from ..simulator.scenario import find_scenarios, list_scenarios, scenario_schema
    from .simulate_run import names_of

    if schema:
        print(json.dumps(scenario_schema(), indent=2, ensure_ascii=False))
        return
    found = find_scenarios(list_scenarios() if list_them else names_of(names))
    rows = [(s.name, s.language, len(s.turns), s.description) for s in found]
    if as_json:
        for row in rows:
            print_json(dict(zip(("name", "language", "turns", "description"), row, strict=True)))
        return
    out, _ = consoles()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("scenario", "language", "turns", "what it is about"):
        table.add_column(heading, justify="right" if heading == "turns" else "left")
    for row in rows:
        table.add_row(*map(str, row))
    out.print(table)
