"""Phone calls with sound: ``pipelines/phone_assistant.py`` against Pipecat's stock bot on llama.cpp's server.

Both bots run all the time, each in a process of its own, and are called in turn; only one is in a call at a time.
Latency is measured at the caller's edge: from the caller's last audible sample to the first of the reply. A reply that
the bot drops again by itself does not count, the one after it does.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from voice_llm.errors import VoiceLLMError
from voice_llm.simulator.phone import (
    BotProcess,
    Line,
    PhoneCall,
    PhoneCaller,
    PhoneCallError,
    PiperCallerVoice,
    SpokenLine,
    TurnStages,
    join_call_log,
    read_call_log,
    speak_lines,
)

from .common import THREADS, Proof, machine, model_path, percentile
from .peer import PeerError, PeerServer, clean_up_on_sigterm
from .questions import CALLS as QUESTIONS

CALLS: Final = 6
TURNS: Final = 6
_GREETING: Final = "Northfield Insurance, good day. How can I help you?"
_BARGE_IN_TURN: Final = 3
_BARGE_IN_AFTER_S: Final = 0.7
_ROOT: Final = Path(__file__).parent.parent
_STAGES: Final = tuple(field.name for field in dataclasses.fields(TurnStages))


@dataclass(slots=True)
class Arm:
    """One of the two bots.

    Attributes:
        name: ``stock`` or ``voice_llm``.
        bot: Its process.
        log: Its call log.
        pids: All processes that it needs.
        calls: What was measured.
        failures: Calls that did not come to their end, in words; their turns count nevertheless.
        idle_cores: Cores that it took while the other one was in a call, for each such call.
    """

    name: str
    bot: BotProcess
    log: Path
    pids: list[int]
    calls: list[PhoneCall] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    idle_cores: list[float] = field(default_factory=list)


def main() -> int:
    """Compare, print where the time goes, and write everything that was measured; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.phone_calls", description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS, help="measured calls of each bot")
    parser.add_argument("--turns", type=int, default=TURNS, help="the caller's lines in a call; one is a barge-in")
    parser.add_argument("--threads", type=int, default=THREADS, help="of the peer")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    parser.add_argument("--logs", type=Path, help="folder in which the bots' output and call logs are kept")
    args = parser.parse_args()
    clean_up_on_sigterm()
    console = Console(stderr=True)
    try:
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as progress:
            task = progress.add_task("calls", total=2 * args.calls * args.turns)
            result = asyncio.run(
                compare(
                    calls=args.calls,
                    turns=args.turns,
                    threads=args.threads,
                    logs=args.logs,
                    tell=lambda words, turns: progress.update(task, advance=turns, description=words),
                )
            )
    except (PeerError, VoiceLLMError) as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    if args.out:
        args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    Console().print(stage_table(result))
    return 0


async def voice_to_voice() -> list[Proof]:
    """Run the comparison as two proofs."""
    return proofs(await compare())


def proofs(result: dict[str, Any]) -> list[Proof]:
    """Hold what was measured against the objectives; fewer than 30 answered turns prove nothing."""
    ours, stock = result["arms"]["voice_llm"], result["arms"]["stock"]
    turns = min(len(ours["voice_to_voice_ms"]), len(stock["voice_to_voice_ms"]))
    failed = ours["failures"] or ours["unanswered"]
    names = (
        "voice_to_voice_p50_ms",
        "voice_to_voice_p90_ms",
        "stages_ms",
        "failures",
        "broken_off",
        "unanswered",
        "idle_cores_max",
    )
    return [
        Proof(
            "voice_to_voice",
            f"phone calls with sound, voice to voice at the caller's edge over {turns} turns each: p50 and p90 at most "
            "0.75 of Pipecat's stock bot",
            turns >= 30 and not failed and max(result["ratio_p50"], result["ratio_p90"]) <= 0.75,
            {
                "ratio_p50": result["ratio_p50"],
                "ratio_p90": result["ratio_p90"],
                "voice_llm": {name: ours[name] for name in names},
                "stock": {name: stock[name] for name in names},
            },
        ),
        Proof(
            "barge_in",
            "barge-in: the reply stops within 350 ms at the caller's edge",
            bool(ours["stop_ms"]) and max(ours["stop_ms"]) <= 350.0,
            {"stop_ms": ours["stop_ms"], "stock_stop_ms": stock["stop_ms"]},
        ),
    ]


async def compare(
    *,
    calls: int = CALLS,
    turns: int = TURNS,
    threads: int = THREADS,
    logs: Path | None = None,
    tell: Callable[[str, int], None] = lambda words, turns: None,
) -> dict[str, Any]:
    """Call both bots in turn.

    Args:
        calls: Measured calls of each bot, after one that is not.
        turns: The caller's lines in a call.
        threads: Of the peer.
        logs: Folder for what the bots write; it is made where it does not exist.
        tell: Called with what is going on, and how many lines have been said since.

    Returns:
        See ``summary``; with the machine.

    Raises:
        PeerError: The peer is missing or does not run.
        VoiceLLMError: A bot does not start, or a voice is missing.
    """
    tell("the caller's voice", 0)
    scripts = _scripts(calls, turns)
    async with AsyncExitStack() as stack:
        folder = logs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_plain_environment())
        arms = await _start(stack, folder, threads, tell)
        for arm in arms:
            tell(f"{arm.name} warms up", 0)
            await _warm_up(arm, scripts[0][:1])
        for number, lines in enumerate(scripts):
            for arm in arms if number % 2 == 0 else arms[::-1]:
                resting = next(other for other in arms if other is not arm)
                await _place_call(arm, resting, lines, partial(tell, f"{arm.name}, call {number + 1}"))
    return {"machine": machine() | {"threads": threads, "omp_wait_policy": "unset"}, **summary(arms)}


async def _start(
    stack: AsyncExitStack, folder: Path, threads: int, tell: Callable[[str, int], None]
) -> tuple[Arm, Arm]:
    """Start the peer and both bots."""
    tell("llama.cpp's server starts", 0)
    peer = stack.enter_context(PeerServer(model_path(), threads=threads))
    arms = []
    for name, script, more in (
        ("stock", _ROOT / "benchmarks" / "stock_phone_bot.py", [peer.pid]),
        ("voice_llm", _ROOT / "pipelines" / "phone_assistant.py", []),
    ):
        tell(f"{name} starts", 0)
        log = folder / f"{name}.jsonl"
        bot = await stack.enter_async_context(
            BotProcess(
                script,
                output_path=folder / f"{name}.log",
                call_log_path=log,
                environment={"STOCK_LLM_URL": peer.url, "VOICE_LLM_GREETING": _GREETING},
            )
        )
        assert bot.pid is not None
        arms.append(Arm(name, bot, log, [bot.pid, *more]))
    return arms[0], arms[1]


async def _warm_up(arm: Arm, lines: Sequence[SpokenLine]) -> None:
    """Place a call that does not count; a bot that cannot take even that one is not worth the rest."""
    try:
        await PhoneCaller(arm.bot.url, lines).call()
    except PhoneCallError as error:
        arm.bot.check()
        raise PhoneCallError(f"{arm.name} failed at its first call: {error}") from error


async def _place_call(arm: Arm, resting: Arm, lines: Sequence[SpokenLine], on_turns: Callable[[int], None]) -> None:
    """Place one call, and see what the other bot takes of the machine meanwhile."""
    began_s, before_s = time.monotonic(), _cpu_s(resting.pids)
    try:
        call = await PhoneCaller(arm.bot.url, lines, on_turn=lambda turn: on_turns(1)).call()
    except PhoneCallError as error:
        arm.bot.check()
        arm.failures.append(str(error))
        if error.call is None:
            return
        call = error.call
    if before_s is not None:
        used_s = (_cpu_s(resting.pids) or before_s) - before_s
        resting.idle_cores.append(round(used_s / (time.monotonic() - began_s), 3))
    arm.calls.append(join_call_log(call, read_call_log(arm.log)) if arm.log.exists() else call)


def summary(arms: Sequence[Arm]) -> dict[str, Any]:
    """Compare what was measured.

    Args:
        arms: The stock bot, and ours.

    Returns:
        Ratios of the medians and of the 90th percentiles (None where nothing was measured), and for each bot:
        latencies, stops, the median of each stage, failures, and every call.
    """
    found = {arm.name: _summary(arm) for arm in arms}
    ours, stock = found["voice_llm"], found["stock"]
    ratios = {}
    for percent in ("p50", "p90"):
        mine, theirs = ours[f"voice_to_voice_{percent}_ms"], stock[f"voice_to_voice_{percent}_ms"]
        ratios[f"ratio_{percent}"] = round(mine / theirs, 3) if mine and theirs else None
    return {**ratios, "arms": found}


def _summary(arm: Arm) -> dict[str, Any]:
    turns = [turn for call in arm.calls for turn in call.turns]
    values_ms = [turn.answer_ms for turn in turns if turn.answer_ms is not None and not turn.talked_over]
    stages = [turn.stages for turn in turns if turn.stages is not None and not turn.talked_over]
    return {
        "voice_to_voice_p50_ms": round(percentile(values_ms, 0.5), 1) if values_ms else None,
        "voice_to_voice_p90_ms": round(percentile(values_ms, 0.9), 1) if values_ms else None,
        "voice_to_voice_ms": [round(value, 1) for value in values_ms],
        "stop_ms": [round(turn.stop_ms, 1) for turn in turns if turn.stop_ms is not None],
        "stages_ms": {name: _median(getattr(stage, name) for stage in stages) for name in _STAGES},
        "talked_over": sum(turn.talked_over for turn in turns),
        "broken_off": sum(turn.broken_off for turn in turns),
        "unanswered": sum(turn.answer_ms is None for turn in turns),
        "failures": arm.failures,
        "idle_cores_max": max(arm.idle_cores, default=None),
        "calls": [call.to_json() for call in arm.calls],
    }


def stage_table(result: dict[str, Any]) -> Table:
    """Show where each millisecond goes: medians after the end of the caller's speech, and what each stage adds."""
    table = Table(title="Median milliseconds after the end of the caller's speech")
    table.add_column("stage")
    arms = result["arms"]
    for name in arms:
        table.add_column(name, justify="right")
        table.add_column("adds", justify="right", style="dim")
    last = dict.fromkeys(arms, 0.0)
    for stage in _STAGES:
        cells = []
        for name, arm in arms.items():
            value = arm["stages_ms"][stage]
            cells += ["-", ""] if value is None else [f"{value:.0f}", f"{value - last[name]:+.0f}"]
            last[name] = last[name] if value is None else value
        table.add_row(stage.removesuffix("_ms").replace("_", " "), *cells)
    table.add_section()
    for words, key in (
        ("voice to voice p50", "voice_to_voice_p50_ms"),
        ("voice to voice p90", "voice_to_voice_p90_ms"),
    ):
        table.add_row(words, *(cell for arm in arms.values() for cell in (_shown(arm[key]), "")))
    table.add_row("barge-in stops after", *(c for a in arms.values() for c in (_shown(_median(a["stop_ms"])), "")))
    return table


def _scripts(calls: int, turns: int) -> list[tuple[SpokenLine, ...]]:
    """Return what the caller says in each call, as sound; everything is synthesised before the first call."""
    voice = PiperCallerVoice()
    words = [line for call in QUESTIONS for line in call]
    scripts = []
    for call in range(calls):
        texts = [words[(call * turns + turn) % len(words)] for turn in range(turns)]
        scripts.append(
            speak_lines(
                (
                    Line(text=text, barge_in_after_s=_BARGE_IN_AFTER_S if turn == _BARGE_IN_TURN else None)
                    for turn, text in enumerate(texts)
                ),
                voice,
            )
        )
    return scripts


@contextmanager
def _plain_environment() -> Iterator[None]:
    """Start what is started meanwhile without this package's choice of how OpenMP waits: as a user would."""
    chosen = {name: os.environ.pop(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(chosen)


def _cpu_s(pids: Sequence[int]) -> float | None:
    """Return the CPU time that processes have taken; None where the system does not tell."""
    try:
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    except OSError:
        return None
    return sum(int(f[11]) + int(f[12]) for f in fields) / float(os.sysconf("SC_CLK_TCK"))


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 1) if known else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
