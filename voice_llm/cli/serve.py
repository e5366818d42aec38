"""``voice-llm serve``: the engine behind gRPC, HTTP, WebSocket and metrics."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..config import Profile, ServerConfig, Settings
from ..errors import ConfigError
from ..runtime import Engine
from .exit_codes import ExitCode, exit_code_of
from .options import (
    DEFAULT_PROFILE,
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

if TYPE_CHECKING:
    from ..servers.app import Ports

__all__ = ["serve"]

logger = logging.getLogger(__name__)

_SERVER = "Server"

HostOption = Annotated[
    str | None,
    typer.Option("--host", help="Address to listen on; 127.0.0.1 by default.", rich_help_panel=_SERVER, metavar="H"),
]
HttpPortOption = Annotated[
    int | None, typer.Option(help="OpenAI-compatible HTTP; 16070.", rich_help_panel=_SERVER, metavar="PORT")
]
GrpcPortOption = Annotated[int | None, typer.Option(help="gRPC; 16071.", rich_help_panel=_SERVER, metavar="PORT")]
MetricsPortOption = Annotated[
    int | None, typer.Option(help="Prometheus metrics; 16072.", rich_help_panel=_SERVER, metavar="PORT")
]
WsPortOption = Annotated[
    int | None, typer.Option(help="WebSocket calls; 16073.", rich_help_panel=_SERVER, metavar="PORT")
]
DrainOption = Annotated[
    float | None,
    typer.Option(
        "--drain-s", help="Seconds that calls may go on after SIGTERM; 30.", rich_help_panel=_SERVER, metavar="S"
    ),
]


def serve(
    as_json: JsonOption = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    model: ModelOption = None,
    calls: CallsOption = None,
    context_per_call: ContextOption = None,
    threads: ThreadsOption = None,
    gpu_layers: GpuLayersOption = None,
    kv: KvOption = None,
    host: HostOption = None,
    http_port: HttpPortOption = None,
    grpc_port: GrpcPortOption = None,
    metrics_port: MetricsPortOption = None,
    ws_port: WsPortOption = None,
    drain_s: DrainOption = None,
    supervise: Annotated[
        bool,
        typer.Option(
            "--supervise/--no-supervise",
            help="Start the server again if it dies; without, something else should.",
            rich_help_panel=_SERVER,
        ),
    ] = True,
) -> None:
    """Serve the engine over gRPC, OpenAI-compatible HTTP, WebSocket and Prometheus metrics.

    Listens at once and loads the model meanwhile; `voice-llm wait-for-ready` says when. Every option can also be set in
    the environment or in .env: `voice-llm config` shows what holds and why. SIGTERM lets calls end, then exits with 0.
    With --json, or where the output is no terminal, logs are JSON lines on the standard error.

    Examples:
      voice-llm serve

      voice-llm serve --profile smollm2_135m_demo --calls 16 --host 0.0.0.0
    """
    config = Settings().server(
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        ws_port=ws_port,
        drain_s=drain_s,
    )
    options = EngineOptions(
        profile=profile,
        model=model,
        calls=calls,
        context_per_call=context_per_call,
        threads=threads,
        gpu_layers=gpu_layers,
        kv=kv,
    )
    served = options.settled_profile()  # what is wrong with it is said before anything is started
    _set_up_logging(as_json=as_json)
    supervised = os.environ.get("VOICE_LLM_SUPERVISED") == "1"
    if supervise and not supervised:
        raise typer.Exit(_supervise())
    raise typer.Exit(asyncio.run(_serve(options, served, config, quiet=as_json, supervised=supervised)))


def _supervise() -> int:
    from ..servers.supervisor import Supervisor, this_command

    return Supervisor(this_command(*sys.argv[1:])).run()


def _set_up_logging(*, as_json: bool) -> None:
    try:
        from ..servers.logs import set_up_logging
    except ImportError as e:
        raise ConfigError(f"{e.name} is not installed; run: pip install 'pipecat-voice-llm[server]'") from e
    level = logging.getLogger().level
    set_up_logging(min(level, logging.INFO), json=as_json or not sys.stderr.isatty())


async def _serve(
    options: EngineOptions, profile: Profile, config: ServerConfig, *, quiet: bool, supervised: bool
) -> int:
    try:
        from ..servers.app import App
        from ..servers.host import EngineHost
        from ..servers.metrics import PrometheusObserver
    except ImportError as e:
        raise ConfigError(f"{e.name} is not installed; run: pip install 'pipecat-voice-llm[server]'") from e

    observer = PrometheusObserver()
    began_s = time.monotonic()

    async def load() -> Engine:
        engine = await options.load(profile, observer=observer)
        logger.info("ready after %.1f s: %r", time.monotonic() - began_s, engine)
        return engine

    host = EngineHost(load, profile_name=profile.name, observer=observer)
    app = App(host, config, observer)
    try:
        ports = await app.start()
        if not quiet:
            _announce(config, ports, profile)
        stop, hurry = asyncio.Event(), asyncio.Event()
        with _told_to_stop(stop, hurry, supervised=supervised):
            wanted = await app.run(stop, hurry)
        if wanted:
            logger.info("stopped")
            return ExitCode.DONE
        return _status_of(host.error)
    finally:
        await app.close()


def _status_of(error: BaseException | None) -> int:
    from ..servers.supervisor import ENGINE_DIED

    if error is None:
        return ENGINE_DIED
    return exit_code_of(error) if isinstance(error, Exception) else ExitCode.FAILED


class _told_to_stop:  # noqa: N801
    """Listens to SIGTERM and SIGINT, the second of which means at once, and to the end of the supervisor."""

    def __init__(self, stop: asyncio.Event, hurry: asyncio.Event, *, supervised: bool) -> None:
        self._stop = stop
        self._hurry = hurry
        self._supervised = supervised
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._told)
        if self._supervised:
            self._loop.add_reader(sys.stdin.fileno(), self._supervisor_said)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)
        if self._supervised:
            self._loop.remove_reader(sys.stdin.fileno())

    def _told(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    def _supervisor_said(self) -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            self._loop.remove_reader(sys.stdin.fileno())
            self._stop.set()


def _announce(config: ServerConfig, ports: Ports, profile: Profile) -> None:
    """Say where what can be reached; the model is still being loaded."""
    out = Console(highlight=False, soft_wrap=True, emoji=False)
    host = f"[{config.host}]" if ":" in config.host else config.host
    out.print(f"voice-llm serves [bold]{profile.name}[/bold]; the model is being loaded")
    rows = (
        ("OpenAI HTTP", f"http://{host}:{ports.http}/v1"),
        ("gRPC", f"{host}:{ports.grpc}" + (" (mutual TLS)" if config.tls else "")),
        ("WebSocket", f"ws://{host}:{ports.ws}/v1/calls/{{call_id}}"),
        ("metrics", f"http://{host}:{ports.metrics}/metrics"),
    )
    for name, address in rows:
        out.print(f"  {name:<12}", end="", style="dim")
        out.print(address, markup=False)
