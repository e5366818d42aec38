"""``voice-llm config``: each setting and where it comes from."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import Settings
from ..config.overview import Overview, Setting
from .options import (
    DEFAULT_PROFILE,
    AdmissionOption,
    CallsOption,
    ContextOption,
    EngineOptions,
    GpuLayersOption,
    JsonOption,
    KvOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
)
from .serve import DrainOption, GrpcPortOption, HostOption, HttpPortOption, MetricsPortOption, WsPortOption

__all__ = [
    "DrainOption",
    "GrpcPortOption",
    "HostOption",
    "HttpPortOption",
    "MetricsPortOption",
    "WsPortOption",
    "config",
]

# Prompts and templates run over many lines: --json has all of them.
_LONG: Final = frozenset({"system_prompt", "rag_prompt", "chat_template", "grammar", "json_schema"})


def config(
    as_json: JsonOption = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    model: ModelOption = None,
    calls: CallsOption = None,
    context_per_call: ContextOption = None,
    threads: ThreadsOption = None,
    gpu_layers: GpuLayersOption = None,
    kv: KvOption = None,
    admission: AdmissionOption = None,
    host: HostOption = None,
    http_port: HttpPortOption = None,
    grpc_port: GrpcPortOption = None,
    metrics_port: MetricsPortOption = None,
    ws_port: WsPortOption = None,
    drain_s: DrainOption = None,
) -> None:
    """Show each setting and where it comes from: default, profile, .env, environment or flag. Keys are masked.

    Takes the flags of serve, and refuses what serve would refuse.
    """
    options = EngineOptions(
        calls=calls,
        context_per_call=context_per_call,
        threads=threads,
        gpu_layers=gpu_layers,
        kv=kv,
        admission=admission,
    )
    server_flags = {
        "host": host,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "ws_port": ws_port,
        "drain_s": drain_s,
    }
    overview = Overview(
        profile, Settings(), model=model, engine_flags=options.engine_fields(), server_flags=server_flags
    )
    if as_json:
        for setting in overview.settings():
            typer.echo(json.dumps(dataclasses.asdict(setting), ensure_ascii=False))
    else:
        Console().print(_table(overview.settings()))


def _table(settings: list[Setting]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold", ratio=1)
    table.add_column("from", no_wrap=True)
    for group, members in itertools.groupby(settings, key=lambda setting: setting.group):
        table.add_row(Text(f"\n{group}", style="bold"))
        for setting in members:
            style = "dim" if setting.origin == "default" else ""
            table.add_row(f"  {setting.name}", _cell(setting), setting.origin, style=style)
    return table


def _cell(setting: Setting) -> Text:
    if setting.name in _LONG:
        return Text(" ".join(_words(setting.value).split()), no_wrap=True, overflow="ellipsis")
    return Text(_words(setting.value))


def _words(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {member}" for name, member in value.items())
    return str(value)
