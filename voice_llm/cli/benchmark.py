"""``voice-llm benchmark``: how fast a running server answers many callers at once, over gRPC."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..errors import ConfigError
from .client import consoles, print_json, require, run_client
from .endpoints import (
    DEFAULT_GRPC,
    ApiKeyOption,
    Endpoints,
    GrpcEndpointOption,
    TenantOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
)
from .exit_codes import ExitCode
from .load_questions import FACTS, QUESTIONS, SYSTEM
from .options import JsonOption

if TYPE_CHECKING:
    from ..simulator import Percentiles
    from .grpc_client import Question
    from .load import LoadResult

__all__ = ["benchmark", "measure_rounds"]

_ROUNDS = "[progress.description]{task.description}"


def benchmark(
    concurrent: Annotated[int, typer.Option(help="Questions asked at the same time.", min=1, metavar="N")] = 4,
    requests: Annotated[int, typer.Option(help="Questions of one round.", min=1, metavar="N")] = 20,
    iterations: Annotated[int, typer.Option(help="Rounds; their spread is shown.", min=1, metavar="N")] = 1,
    max_tokens: Annotated[int, typer.Option(help="Longest reply, in tokens.", min=1, metavar="N")] = 64,
    output: Annotated[
        Path | None, typer.Option(help="Write the figures to this file, as JSON.", metavar="FILE")
    ] = None,
    as_json: JsonOption = False,
    grpc_endpoint: GrpcEndpointOption = DEFAULT_GRPC,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tenant: TenantOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Measure how fast a running server answers many callers at once.

    Each question is a caller's first, with instructions and facts, in English or Turkish.
    """

    async def run() -> ExitCode:
        endpoints = Endpoints.of_grpc(grpc_endpoint, tls_ca, tls_cert, tls_key, tenant, api_key)
        endpoints.check_tenant()
        return await measure_rounds(
            endpoints,
            concurrent=concurrent,
            requests=requests,
            iterations=iterations,
            max_tokens=max_tokens,
            output=output,
            as_json=as_json,
        )

    run_client(run, as_json=as_json)


async def measure_rounds(
    endpoints: Endpoints,
    *,
    concurrent: int,
    requests: int,
    iterations: int,
    max_tokens: int,
    output: Path | None,
    as_json: bool,
) -> ExitCode:
    """Ask ``iterations`` rounds of ``requests`` questions, print the figures and write them to a file.

    Raises:
        ConfigError: The file cannot be written, or a library or a TLS file is missing.
        UnreachableError: No server answers at the start.
    """
    _check(output)
    require("grpc_client")
    options = {"concurrent": concurrent, "requests": requests, "iterations": iterations, "max_tokens": max_tokens}
    results = await _run_rounds(
        endpoints, concurrent=concurrent, requests=requests, iterations=iterations, max_tokens=max_tokens, quiet=as_json
    )
    report = _report(options, results)
    if output is not None:
        _write(output, report)
    if as_json:
        print_json(report)
    else:
        _show(results, report["spread"])
    return ExitCode.FAILED if any(result.errors for result in results) else ExitCode.DONE


async def _run_rounds(
    endpoints: Endpoints,
    *,
    concurrent: int,
    requests: int,
    iterations: int,
    max_tokens: int,
    quiet: bool,
    clock: Callable[[], float] = time.monotonic,
) -> list[LoadResult]:
    from .grpc_client import GrpcClient
    from .load import ask_all

    _, err = consoles()
    questions = [_question(i, max_tokens) for i in range(requests)]
    results: list[LoadResult] = []
    async with GrpcClient(endpoints) as client:
        await client.health(10.0)
        with _progress(err, quiet=quiet) as bar:
            for i in range(iterations):
                task = bar.add_task(f"round {i + 1} of {iterations}", total=requests)
                results.append(
                    await ask_all(
                        client,
                        questions,
                        concurrent=concurrent,
                        clock=clock,
                        on_done=functools.partial(bar.advance, task),
                    )
                )
    return results


def _question(i: int, max_tokens: int) -> Question:
    from .grpc_client import Question

    # A seed each: replies differ from one another, and the rounds are the same.
    prompt = QUESTIONS[i % len(QUESTIONS)]
    return Question(prompt=prompt, system=SYSTEM, rag_context=FACTS, max_tokens=max_tokens, seed=i)


def _progress(console: Console, *, quiet: bool) -> Progress:
    columns = (TextColumn(_ROUNDS), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)


def _report(options: dict[str, int], results: Sequence[LoadResult]) -> dict[str, Any]:
    from .load import spread

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "processor": platform.processor() or platform.machine(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        },
        "version": importlib.metadata.version("pipecat-voice-llm"),
        **options,
        "rounds": [result.as_json() for result in results],
        "spread": spread(results),
    }


def _check(output: Path | None) -> None:
    """Refuse a file that could not be written, before minutes of measuring."""
    if output is not None and not output.resolve().parent.is_dir():
        raise ConfigError(f"--output: there is no directory {output.resolve().parent}", param="output")


def _write(path: Path, report: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"--output {path} cannot be written: {e.strerror}", param="output") from e


def _show(results: Sequence[LoadResult], spread: dict[str, dict[str, float]]) -> None:
    out, err = consoles()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("round", "answered", "first token ms\np50 / p95 / p99", "reply ms\np50 / p95 / p99", "tokens/s"):
        table.add_column(name, justify="left" if name == "round" else "right")
    for i, result in enumerate(results, start=1):
        asked = len(result.answers) + result.errors.total()
        table.add_row(
            str(i),
            f"{len(result.answers)}/{asked}",
            _three(result.first_token_ms),
            _three(result.total_ms),
            f"{result.tokens_per_s:.0f}",
        )
    out.print(table)
    if len(results) > 1:
        for name, label in (("first_token_ms_p95", "first token p95, ms"), ("tokens_per_s", "tokens/s")):
            if name in spread:
                low, middle, high = (spread[name][key] for key in ("min", "median", "max"))
                out.print(f"{label}: {low:.0f} to {high:.0f}, median {middle:.0f}", style="dim")
    errors = Counter(code for result in results for code in result.errors.elements())
    for code, count in errors.most_common():
        err.print(f"voice-llm: {count} failed with {code}", style="red", markup=False)


def _three(percentiles: Percentiles | None) -> str:
    return "-" if percentiles is None else f"{percentiles.p50:.0f} / {percentiles.p95:.0f} / {percentiles.p99:.0f}"
