"""``voice-llm generate``: ask a running server one question over gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from .answer import measure
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
from .options import JsonOption, text_or_file

if TYPE_CHECKING:
    from .grpc_client import Question

__all__ = ["ask", "generate"]


def generate(
    prompt: Annotated[str, typer.Argument(help="What the caller asks.", metavar="PROMPT", show_default=False)],
    rag_context: Annotated[
        str | None, typer.Option(help="Retrieved facts for this question.", metavar="TEXT|@FILE")
    ] = None,
    system: Annotated[
        str, typer.Option(help="Instructions, after the profile's system prompt.", metavar="TEXT|@FILE")
    ] = "",
    max_tokens: Annotated[int | None, typer.Option(help="Longest reply, in tokens.", metavar="N")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 for the likeliest word each time.", metavar="T")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes replies repeatable.", metavar="N")] = None,
    call_id: Annotated[
        str | None, typer.Option(help="Questions with the same id share one call's cache.", metavar="ID")
    ] = None,
    as_json: JsonOption = False,
    grpc_endpoint: GrpcEndpointOption = DEFAULT_GRPC,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tenant: TenantOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Ask a running server one question and show how fast the answer is.

    Examples:
      voice-llm generate "What are your opening hours?" --rag-context @facts.txt

      voice-llm generate "Kaskom camı kapsıyor mu?" --grpc-endpoint gateway:16071 --json
    """

    async def run() -> ExitCode:
        endpoints = Endpoints.of_grpc(grpc_endpoint, tls_ca, tls_cert, tls_key, tenant, api_key)
        endpoints.check_tenant()
        question = require("grpc_client").Question(
            prompt=prompt,
            system=text_or_file(system) or "",
            rag_context=text_or_file(rag_context),
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            call_id=call_id,
        )
        return await ask(endpoints, question, as_json=as_json)

    run_client(run, as_json=as_json)


async def ask(
    endpoints: Endpoints, question: Question, *, as_json: bool, clock: Callable[[], float] = time.monotonic
) -> ExitCode:
    """Ask a question and print the reply as it comes, then its figures.

    Raises:
        VoiceLLMError: The server is not there, refuses, or fails.
    """
    from .grpc_client import GrpcClient

    out, err = consoles()
    in_line = False

    def show(text: str) -> None:
        nonlocal in_line
        if as_json:
            print_json({"type": "token", "text": text})
            return
        out.print(text, end="", markup=False)
        out.file.flush()
        in_line = True

    try:
        async with GrpcClient(endpoints) as client:
            answer = await measure(client, question, clock, show)
    finally:
        if in_line:
            out.print()
    if as_json:
        print_json(answer.as_json())
    else:
        err.print(str(answer), style="dim", markup=False)
    return ExitCode.DONE
