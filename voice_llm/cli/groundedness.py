"""``voice-llm groundedness``: does a model say only what a call's facts bear out?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError, VoiceLLMError
from ..simulator.groundedness import Grounding, Scores, ask_all, load_questions
from ..simulator.targets import CallHolder
from .client import consoles, print_json, show_error
from .endpoints import ApiKeyOption, TenantOption
from .exit_codes import ExitCode, exit_code_of
from .options import (
    DEFAULT_PROFILE,
    EngineOptions,
    GpuLayersOption,
    JsonOption,
    ModelOption,
    ProfileOption,
    ThreadsOption,
)
from .simulate_target import TargetOptions

__all__ = ["groundedness"]

_KINDS: Final = ("answerable", "absent", "contradicted")
_COLOURS: Final = {
    Grounding.RIGHT: "green",
    Grounding.DECLINED: "yellow",
    Grounding.WRONG: "yellow",
    Grounding.INVENTED: "red",
}


def groundedness(
    questions: Annotated[
        Path | None, typer.Option(help="Questions of your own, as YAML; forty are built in.", metavar="FILE")
    ] = None,
    max_invented: Annotated[
        float | None,
        typer.Option(
            help="End with 4 where more than so many percent of the replies invent.", min=0, max=100, metavar="%"
        ),
    ] = None,
    concurrent: Annotated[int, typer.Option(help="Questions at the same time.", min=1, metavar="N")] = 4,
    target: Annotated[
        str, typer.Option(help="engine, grpc://HOST:PORT, ws://HOST:PORT or http://HOST:PORT/v1.", metavar="TARGET")
    ] = "engine",
    model_name: Annotated[str | None, typer.Option(help="Model to ask an OpenAI server for.", metavar="NAME")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write all replies to this file, as JSON.", metavar="FILE")
    ] = None,
    as_json: JsonOption = False,
    tenant: TenantOption = None,
    api_key: ApiKeyOption = None,
    profile: ProfileOption = DEFAULT_PROFILE,
    model: ModelOption = None,
    threads: ThreadsOption = None,
    gpu_layers: GpuLayersOption = None,
) -> None:
    """Ask about facts of a call: some that answer, some that do not, and some that contradict what the caller claims.

    A reply is invented if it has a number, time, day or name that is in neither facts nor question.
    So is one that answers what the facts do not say, or agrees with a false claim.
    The scorer knows no meaning: it can miss an invention in plain words.
    It takes a fact in unusual words for a wrong answer.
    """

    async def run() -> ExitCode:
        asked = load_questions(questions)
        options = TargetOptions(
            text=target,
            engine=EngineOptions(
                profile=profile,
                model=model,
                calls=concurrent,
                threads=threads,
                gpu_layers=gpu_layers,
                admission="limit",
            ),
            api_key=api_key,
            tenant=tenant,
            model_name=model_name,
        )
        if options.kind in ("virtual", "audio"):
            raise ConfigError(f"--target is {target!r}: there is no model to ask", param="target")
        async with options.open(quiet=as_json) as called:
            assert not isinstance(called.target, CallHolder)
            with _progress(len(asked), quiet=as_json) as advance:
                scores = await ask_all(called.target, asked, concurrent=concurrent, on_answer=advance)
        report = _report(scores, called.about)
        if output is not None:
            _write(output, report)
        if as_json:
            print_json({name: value for name, value in report.items() if name != "answers"})
        else:
            _show(scores)
        if scores.failed:
            return ExitCode.FAILED
        missed = max_invented is not None and scores.share(Grounding.INVENTED) * 100 > max_invented
        return ExitCode.OBJECTIVE_MISSED if missed else ExitCode.DONE

    try:
        code = asyncio.run(run())
    except VoiceLLMError as error:
        show_error(error, as_json=as_json)
        code = exit_code_of(error)
    except KeyboardInterrupt:
        code = ExitCode.FAILED
    raise typer.Exit(code)


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("asking", total=total)
        yield lambda: bar.advance(task)


def _report(scores: Scores, about: dict[str, str]) -> dict[str, Any]:
    return {
        "about": about,
        "questions": len(scores.answers),
        "failed": scores.failed,
        "shares": _shares(scores),
        "by_kind": {kind: _shares(scores.of(kind=kind)) for kind in _KINDS},
        "by_language": {language: _shares(scores.of(language=language)) for language in _languages(scores)},
        "answers": [
            {
                "id": answer.question.id,
                "kind": answer.question.kind,
                "question": answer.question.question,
                "text": answer.text,
                "grounding": answer.grounding.value,
                "why": answer.why,
            }
            for answer in scores.answers
        ],
    }


def _shares(scores: Scores) -> dict[str, float]:
    return {grounding.value: round(scores.share(grounding), 4) for grounding in Grounding}


def _languages(scores: Scores) -> list[str]:
    return list(dict.fromkeys(answer.question.language for answer in scores.answers))


def _write(path: Path, report: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}", param="output") from None


def _show(scores: Scores) -> None:
    out, _ = consoles()
    replies = Table(box=SIMPLE_HEAD)
    for heading, ratio in (("question", 4), ("reply", 6), ("", 2), ("why", 4)):
        replies.add_column(heading, ratio=ratio, overflow="fold")
    for answer in scores.answers:
        grounding = Text(answer.grounding.value, _COLOURS[answer.grounding])
        replies.add_row(Text(answer.question.question), Text(answer.text), grounding, Text(answer.why))
    out.print(replies)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for heading in ("questions", *(grounding.value for grounding in Grounding)):
        table.add_column(heading, justify="right")
    for name, part in _parts(scores):
        table.add_row(name, str(len(part.answers)), *(f"{part.share(grounding):.0%}" for grounding in Grounding))
    out.print(table)


def _parts(scores: Scores) -> Iterator[tuple[str, Scores]]:
    for kind in _KINDS:
        yield kind, scores.of(kind=kind)
    for language in _languages(scores):
        yield language, scores.of(language=language)
    yield "all", scores
