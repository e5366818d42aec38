"""The command line's root: global options, logging, and how errors become messages and exit codes."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
from typing import Annotated

import typer

from ..config import Settings
from ..errors import VoiceLLMError
from .benchmark import benchmark
from .call import call
from .config import config
from .environment import let_threads_spin
from .exit_codes import ExitCode, exit_code_of
from .generate import generate
from .groundedness import groundedness
from .health import health
from .interrupt_test import interrupt_test
from .plan import plan
from .serve import serve
from .simulate import simulate
from .wait_for_ready import wait_for_ready

__all__ = ["app", "main"]

app = typer.Typer(
    name="voice-llm",
    help="The language-model engine for phone calls: several live calls on one local model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("call")(call)
app.command("serve")(serve)
app.command("config")(config)
app.command("generate")(generate)
app.command("health")(health)
app.command("wait-for-ready")(wait_for_ready)
app.command("benchmark")(benchmark)
app.command("interrupt-test")(interrupt_test)
app.command("simulate")(simulate)
app.command("plan")(plan)
app.command("groundedness")(groundedness)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"voice-llm {importlib.metadata.version('pipecat-voice-llm')}")
        raise typer.Exit


@app.callback()
def root(
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, show_default=False, help="Log more; twice for llama.cpp's log too."
        ),
    ] = 0,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Set up what all commands share."""
    level = (Settings().log_level.upper(), "INFO", "DEBUG")[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if verbose < 2:
        # What goes wrong in llama.cpp is in the exception's text already.
        logging.getLogger("voice_llm.llama_cpp").setLevel(logging.CRITICAL)
    let_threads_spin()


def main() -> None:
    """Run the command line; the entry point of ``voice-llm``."""
    try:
        app()
    except VoiceLLMError as e:
        typer.secho(f"voice-llm: {e}", err=True, fg=typer.colors.RED)
        sys.exit(exit_code_of(e))
    except KeyboardInterrupt:
        sys.exit(ExitCode.FAILED)
