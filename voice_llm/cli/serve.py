"""``voice-llm serve``: the engine behind gRPC, HTTP, WebSocket and metrics."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer
from rich.console import Console

from ..config import Profile, ServerConfig, Settings
from ..errors import ConfigError
from ..runtime import Engine
from ..servers.supervisor import ENGINE_DIED, SUPERVISED, Supervisor, this_command
from .exit_codes import ExitCode, exit_code_of
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

if TYPE_CHECKING:
    from ..servers.app import App, Ports

__all__ = ["serve"]

logger = logging.getLogger(__name__)

_SERVER: Final = "Server"
_LAST_WORDS_S: Final = 5.0

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
    admission: AdmissionOption = None,
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

    Listens at once and loads the model meanwhile; "voice-llm wait-for-ready" waits for it.

    Each option is also a variable (.env.example lists them); "voice-llm config" shows what holds, and why.

    SIGTERM lets calls end, then exits with 0; a second one ends at once.

    Logs are JSON lines on the standard error with --json, and where that is no terminal.

    Examples:
      voice-llm serve

      voice-llm serve --profile smollm2_135m_demo --calls 16 --host 0.0.0.0
    """
    settings = Settings()
    config = settings.server(
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
        admission=admission,
    )
    served = _bounded(options.settled_profile(), config)  # what is wrong with it is said before anything is started
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else it prints a line for each client when it stops
    _set_up_logging(settings, as_json=as_json)
    _warn_of_open_doors(config)
    supervised = os.environ.get(SUPERVISED) == "1"
    if supervise and not supervised:
        raise typer.Exit(Supervisor(this_command(*sys.argv[1:])).run())
    raise typer.Exit(asyncio.run(_serve(options, served, config, quiet=as_json, supervised=supervised)))


def _bounded(profile: Profile, config: ServerConfig) -> Profile:
    """Let the profile's own replies keep to the server's bound, over every interface."""
    max_tokens = min(profile.sampling.max_tokens, config.max_reply_tokens)
    return profile.model_copy(update={"sampling": profile.sampling.replace(max_tokens=max_tokens)})


def _set_up_logging(settings: Settings, *, as_json: bool) -> None:
    try:
        from ..servers.logs import set_up_logging
    except ImportError as e:
        raise _not_installed(e) from e
    level = logging.getLogger().level  # by -v, or the environment
    if settings.origin_of("log_level") is None:
        level = min(level, logging.INFO)
    set_up_logging(level, json=as_json or not sys.stderr.isatty())


def _warn_of_open_doors(config: ServerConfig) -> None:
    if config.is_loopback:
        return
    if config.api_keys is None:
        logger.warning(
            "HTTP and WebSocket listen on %s and ask for no key: set LLM_LLAMA_SERVICE_API_KEYS", config.host
        )
    if config.tls is None:
        logger.warning("gRPC listens on %s without TLS: set the certificate files (see .env.example)", config.host)


def _not_installed(error: ImportError) -> ConfigError:
    return ConfigError(f"{error.name} is not installed; run: pip install 'pipecat-voice-llm[server]'")


async def _serve(
    options: EngineOptions, profile: Profile, config: ServerConfig, *, quiet: bool, supervised: bool
) -> int:
    try:
        from ..servers.app import App
        from ..servers.host import EngineHost
        from ..servers.metrics import PrometheusObserver
        from ..servers.tracing import set_up_tracing
    except ImportError as e:
        raise _not_installed(e) from e

    end_tracing = set_up_tracing(os.environ)
    observer = PrometheusObserver()
    began_s = time.monotonic()

    async def load() -> Engine:
        engine = await options.load(profile, observer=observer)
        # What is alive now stays alive: the garbage collector need not look at it in the middle of a reply.
        gc.freeze()
        logger.info("ready after %.1f s: %r", time.monotonic() - began_s, engine)
        return engine

    host = EngineHost(load, profile_name=profile.name, observer=observer, max_per_tenant=config.max_calls_per_tenant)
    app = App(host, config, observer)
    try:
        ports = await app.start()
        if not quiet:
            _announce(config, ports, profile)
        stop, hurry = asyncio.Event(), asyncio.Event()
        with _told_to_stop(stop, hurry, supervised=supervised):
            wanted = await app.run(stop, hurry)
        if not wanted and host.error is None:
            await _leave_dead_engine(app)
    finally:
        await app.close()
        await asyncio.to_thread(end_tracing)
    if isinstance(host.error, Exception):
        return exit_code_of(host.error)  # the log has said what it is
    logger.info("stopped")
    if host.engine is None:
        _exit(ExitCode.DONE)  # a thread still loads or downloads the model, and cannot be told to stop
    return ExitCode.DONE


async def _leave_dead_engine(app: App) -> None:
    """End the process without waiting for a thread that may be stuck in native code."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_S):
            await app.close()
    _exit(ENGINE_DIED)


def _exit(status: int) -> NoReturn:
    """End the process at once, whatever its threads do."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


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
