"""``voice-llm call``: a phone call in text."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator
from typing import Annotated

import typer

from ..config import SamplingParams
from ..errors import VoiceLLMError
from ..session import CallError, CallSession
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
from .view import JsonView, TextView, View

__all__ = ["call"]


def call(
    say: Annotated[
        list[str] | None,
        typer.Option(help="What the caller says; once a turn. Without any, you are the caller.", metavar="TEXT"),
    ] = None,
    system: Annotated[
        str,
        typer.Option(help="Instructions for this call, after the profile's system prompt.", metavar="TEXT|@FILE"),
    ] = "",
    rag_context: Annotated[
        str | None, typer.Option(help="Retrieved facts for the whole call.", metavar="TEXT|@FILE")
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
    view: View = JsonView() if as_json else TextView(typed=say is None and sys.stdin.isatty())
    sampling = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}

    async def hold() -> ExitCode:
        # Loading takes seconds: what is wrong with the call itself is said before.
        instructions, facts = text_or_file(system), text_or_file(rag_context)
        SamplingParams().replace(**sampling)
        async with options.engine(quiet=as_json or not sys.stderr.isatty()) as engine:
            params = engine.profile.sampling.replace(**sampling)
            session = CallSession(engine, system_prompt=instructions or "", rag_context=facts, params=params)
            view.opened(engine)
            return await _hold(session, say, view, prefill=prefill)

    try:
        code = asyncio.run(hold())
    except VoiceLLMError as e:
        code = _failed(e, view)
    except KeyboardInterrupt:
        code = ExitCode.FAILED
    raise typer.Exit(code)


async def _hold(session: CallSession, say: list[str] | None, view: View, *, prefill: bool) -> ExitCode:
    code = ExitCode.DONE
    try:
        view.show(await session.start(prefill=prefill))
        async for text in _caller(say, view):
            view.caller(text)
            async for event in session.turn(text):
                view.show(event)
                if isinstance(event, CallError):
                    code = ExitCode.FAILED
    except VoiceLLMError as e:
        code = _failed(e, view)
    except asyncio.CancelledError:
        if say is not None:
            raise
        # Ctrl-C is a way to hang up.
    finally:
        view.show(await session.end("hangup"))
    return code


def _failed(error: VoiceLLMError, view: View) -> ExitCode:
    view.show(CallError(error.code, str(error), fatal=True))
    return exit_code_of(error)


async def _caller(say: list[str] | None, view: View) -> AsyncIterator[str]:
    """Yield the caller's turns: the given ones, or the lines of the standard input until its end."""
    for text in say or ():
        yield text
    while say is None:
        view.listening()
        try:
            text = await _line()
        except EOFError:
            return
        if text.strip():
            yield text


async def _line() -> str:
    """Read a line on a thread of its own: one of asyncio's would keep Ctrl-C waiting for the line's end."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str] = loop.create_future()

    def settle(text: str, error: Exception | None) -> None:
        if line.done():
            return
        if error is None:
            line.set_result(text)
        else:
            line.set_exception(error)

    def read() -> None:
        text, error = "", None
        try:
            text = input()
        except Exception as e:
            error = e
        with contextlib.suppress(RuntimeError):  # the call, and with it the loop, has ended meanwhile
            loop.call_soon_threadsafe(settle, text, error)

    threading.Thread(target=read, name="voice-llm-input", daemon=True).start()
    return await line
