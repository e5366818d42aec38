"""``voice-llm call``: a phone call in text."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import typer
from rich.console import Console

from ..errors import VoiceLLMError
from ..events import Timings, Usage
from ..runtime import Engine
from ..session import CallError, CallSession, Chunk, Ended, Ready, SessionEvent, TurnEnd, to_json
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
    text_or_file,
)

__all__ = ["call"]


def call(
    say: Annotated[
        list[str] | None, typer.Option(help="What the caller says; once a turn. Without any, you are the caller.")
    ] = None,
    system: Annotated[
        str, typer.Option(help="Instructions for this call, after the profile's system prompt. @FILE reads a file.")
    ] = "",
    rag_context: Annotated[
        str | None, typer.Option(help="Retrieved facts for the whole call. @FILE reads a file.")
    ] = None,
    prefill: Annotated[
        bool,
        typer.Option(
            "--prefill/--no-prefill", help="Compute the opening prompt before the caller speaks, or in the first turn."
        ),
    ] = True,
    max_tokens: Annotated[int | None, typer.Option(help="Longest reply, in tokens.", metavar="N")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 for the likeliest word each time.", metavar="T")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes replies repeatable.", metavar="N")] = None,
    as_json: JsonOption = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    model: ModelOption = None,
    calls: CallsOption = None,
    context_per_call: ContextOption = None,
    threads: ThreadsOption = None,
    gpu_layers: GpuLayersOption = None,
    kv: KvOption = None,
) -> None:
    """Hold a phone call in text and show how fast it is.

    Each --say is one turn of the caller. Without any, type what the caller says; Ctrl-D hangs up.

    Examples:
      voice-llm call --say "Hello?" --say "What are your hours?"

      voice-llm call --rag-context @facts.txt --json --say "Hello?"
    """
    options = EngineOptions(
        profile=profile,
        model=model,
        calls=calls,
        context_per_call=context_per_call,
        threads=threads,
        gpu_layers=gpu_layers,
        kv=kv,
    )
    view: View = JsonView() if as_json else TextView()
    sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}

    async def hold() -> ExitCode:
        async with options.engine(quiet=as_json or not sys.stderr.isatty()) as engine:
            session = CallSession(
                engine,
                system_prompt=text_or_file(system) or "",
                rag_context=text_or_file(rag_context),
                params=engine.profile.sampling.replace(**sampling),
            )
            return await _hold(engine, session, say, view, prefill=prefill)

    try:
        code = asyncio.run(hold())
    except VoiceLLMError as e:
        view.show(CallError(e.code, str(e), fatal=True))
        code = exit_code_of(e)
    except KeyboardInterrupt:
        code = ExitCode.DONE
    raise typer.Exit(code)


async def _hold(engine: Engine, session: CallSession, say: list[str] | None, view: View, *, prefill: bool) -> ExitCode:
    view.opened(engine)
    code = ExitCode.DONE
    try:
        view.show(await session.start(prefill=prefill))
        async for text in _caller(say):
            view.caller(text, typed=say is None)
            async for event in session.turn(text):
                view.show(event)
                if isinstance(event, CallError):
                    code = ExitCode.FAILED
    except asyncio.CancelledError:
        if say is not None:
            raise
    finally:
        view.show(await session.end("hangup"))
    return code


async def _caller(say: list[str] | None) -> AsyncIterator[str]:
    """Yield the caller's turns: the given ones, or what is typed until the end of the input."""
    for text in say or ():
        yield text
    while say is None:
        try:
            text = await asyncio.to_thread(input, "caller  ")
        except EOFError:
            return
        if text.strip():
            yield text


class View:
    """Shows a call; this one shows nothing."""

    def opened(self, engine: Engine) -> None:
        """The engine is loaded."""

    def caller(self, text: str, *, typed: bool) -> None:
        """The caller speaks; ``typed`` if that is on the screen already."""

    def show(self, event: SessionEvent) -> None:
        """Something happened in the call."""


class JsonView(View):
    """One JSON object a line, as on the wire."""

    def show(self, event: SessionEvent) -> None:
        """Print the event."""
        print(json.dumps(to_json(event), ensure_ascii=False), flush=True)


class TextView(View):
    """For people: both sides of the call, and the figures of each turn."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False)
        self._speaking = False

    def opened(self, engine: Engine) -> None:
        """Name the model."""
        info = engine.backend.info
        model = info.model_id.rpartition(":")[0] or info.model_id
        layout = "split" if info.split_kv else "unified"
        self._out.print(f"[dim]{model}: {info.sequences} calls of {info.context_per_call} tokens, {layout} KV[/dim]")

    def caller(self, text: str, *, typed: bool) -> None:
        """Print what the caller says."""
        if not typed:
            self._out.print("\n[bold cyan]caller[/bold cyan]  ", end="")
            self._out.print(text, markup=False)

    def show(self, event: SessionEvent) -> None:
        """Print the event."""
        if isinstance(event, Chunk):
            if not self._speaking:
                self._out.print("[bold green]agent[/bold green]   ", end="")
                self._speaking = True
            self._out.print(event.text, end="", markup=False)
        elif isinstance(event, TurnEnd):
            self._out.print("" if self._speaking else "[dim](no words)[/dim]")
            self._speaking = False
            self._out.print(f"        [dim]{_figures(event.usage, event.timings)}[/dim]")
        elif isinstance(event, Ready) and event.usage.prompt_tokens:
            usage = event.usage
            computed = f"{usage.prompt_tokens - usage.cached_tokens} of {usage.prompt_tokens} tokens computed"
            self._out.print(f"[dim]ready in {event.prefill_ms:.0f} ms: {computed}[/dim]")
        elif isinstance(event, CallError):
            self._err.print(f"voice-llm: {event.message}", style="red", markup=False)
        elif isinstance(event, Ended) and event.turns:
            self._out.print(f"\n[dim]{event.turns} turns in {event.duration_s:.1f} s[/dim]")


def _figures(usage: Usage, timings: Timings) -> str:
    figures = []
    if timings.first_token_ms is not None:
        figures.append(f"first token {timings.first_token_ms:.0f} ms")
    if timings.first_chunk_ms is not None:
        figures.append(f"first chunk {timings.first_chunk_ms:.0f} ms")
    figures.append(f"{_reuse(usage)} reused" if usage.prompt_tokens else "")
    if timings.first_token_ms is not None and timings.total_ms is not None and usage.completion_tokens > 1:
        rate = (usage.completion_tokens - 1) / max(timings.total_ms - timings.first_token_ms, 1e-3) * 1e3
        figures.append(f"{rate:.0f} tokens/s")
    return " | ".join(f for f in figures if f)


def _reuse(usage: Usage) -> str:
    return f"{usage.cached_tokens}/{usage.prompt_tokens} tokens"
