"""The same text-mode Pipecat bot on VoiceLLMService and on Pipecat's OpenAI service with llama.cpp's server.

Measures the time from the end of the caller's turn to the first text out of the service. The bots run one after the
other, each in a process of its own, in rounds, so that a machine that grows slower meets all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from .common import THREADS, Proof, machine, model_path, percentile
from .peer import PeerError, PeerServer, clean_up_on_sigterm

ARMS: Final = ("stock", "voice_llm", "voice_llm_transcripts")
"""The peer's service, ours without the caller's words, and ours with them."""

TURNS: Final = 20
ROUNDS: Final = 4
Turn = dict[str, Any]


def main() -> int:
    """Compare, and write everything that was measured; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipecat_text", description=__doc__)
    parser.add_argument("--turns", type=int, default=TURNS, help="measured turns of each bot, over all rounds")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each bot is started")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    clean_up_on_sigterm()
    console = Console(stderr=True)
    try:
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as progress:
            task = progress.add_task("turns", total=3 * _turns_a_round(args.turns, args.rounds) * args.rounds)
            result = compare(
                turns=args.turns,
                rounds=args.rounds,
                threads=args.threads,
                tell=lambda arm: progress.update(task, advance=1, description=arm),
            )
    except PeerError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    if args.out:
        args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    for name, arm in result["arms"].items():
        print(f"{name:24} p50 {arm['first_text_p50_ms']:7.1f} ms   {arm['ratio']:.2f} of stock")
    return 0


async def first_text() -> list[Proof]:
    """Run the comparison as two proofs."""
    return proofs(await asyncio.to_thread(compare))


def proofs(result: dict[str, Any]) -> list[Proof]:
    """Hold what was measured against the objectives."""
    return [
        _proof(result, "voice_llm", "pipecat_first_text", 1.0, "without transcripts at most 1.0"),
        _proof(
            result, "voice_llm_transcripts", "pipecat_first_text_transcripts", 1 / 3, "with transcripts at most 1/3"
        ),
    ]


def compare(
    *,
    turns: int = TURNS,
    rounds: int = ROUNDS,
    threads: int = THREADS,
    tell: Callable[[str], None] = lambda arm: None,
) -> dict[str, Any]:
    """Let each bot take so many turns.

    Args:
        turns: Measured turns of each bot, over all rounds.
        rounds: How often each bot is started; the order changes from one to the next.
        threads: Of engine and server.
        tell: Called with the bot's name after each of its turns.

    Returns:
        See ``summary``; with the machine.

    Raises:
        PeerError: The peer is missing or does not run.
        RuntimeError: A bot failed; the message has the end of what it wrote.
    """
    found: dict[str, list[list[Turn]]] = {arm: [] for arm in ARMS}
    in_round = _turns_a_round(turns, rounds)
    for index in range(rounds):
        for arm in ARMS[index % 3 :] + ARMS[: index % 3]:
            found[arm].append(_run_bot(arm, in_round, first_call=index, threads=threads, tell=partial(tell, arm)))
    return {"machine": machine() | {"threads": threads}, **summary(found)}


def summary(found: dict[str, list[list[Turn]]]) -> dict[str, Any]:
    """Compare what was found.

    Args:
        found: The turns of each round, by bot; one of them is ``stock``.

    Returns:
        Per bot the median over all turns, its ratio to the stock bot's, the same ratio of each round, tokens that were
        left to compute after the turn's end, and every turn.
    """
    stock_ms = [_p50_ms(turns) for turns in found["stock"]]
    stock_all_ms = _p50_ms([turn for turns in found["stock"] for turn in turns])
    arms: dict[str, Any] = {}
    for arm, rounds in found.items():
        turns = [turn for turns in rounds for turn in turns]
        computed = [
            turn["prompt_tokens"] - turn["cached_tokens"] for turn in turns if turn["cached_tokens"] is not None
        ]
        values_ms = [turn["first_text_ms"] for turn in turns]
        arms[arm] = {
            "first_text_p50_ms": round(_p50_ms(turns), 1),
            "first_text_p90_ms": round(percentile(values_ms, 0.9), 1),
            "ratio": round(_p50_ms(turns) / stock_all_ms, 3),
            "ratio_by_round": [round(_p50_ms(r) / s, 3) for r, s in zip(rounds, stock_ms, strict=True)],
            "first_text_ms": [round(value, 1) for value in values_ms],
            "computed_tokens_p50": statistics.median(computed) if computed else None,
            "turns": turns,
        }
    return {"arms": arms}


def _proof(result: dict[str, Any], arm: str, name: str, bound: float, words: str) -> Proof:
    ours, stock = result["arms"][arm], result["arms"]["stock"]
    return Proof(
        name,
        "Pipecat, end of turn to first text against the OpenAI service on llama.cpp's server, p50 over "
        f"{len(ours['turns'])} turns: {words}",
        ours["ratio"] <= bound,
        {
            "ratio": ours["ratio"],
            "ratio_by_round": ours["ratio_by_round"],
            "first_text_p50_ms": ours["first_text_p50_ms"],
            "stock_first_text_p50_ms": stock["first_text_p50_ms"],
            "computed_tokens_p50": ours["computed_tokens_p50"],
            "stock_computed_tokens_p50": stock["computed_tokens_p50"],
            "first_text_ms": ours["first_text_ms"],
            "stock_first_text_ms": stock["first_text_ms"],
        },
    )


def _p50_ms(turns: Sequence[Turn]) -> float:
    return float(statistics.median(turn["first_text_ms"] for turn in turns))


def _turns_a_round(turns: int, rounds: int) -> int:
    return max(1, -(-turns // rounds))


def _run_bot(arm: str, turns: int, *, first_call: int, threads: int, tell: Callable[[], None]) -> list[Turn]:
    """Run one bot in a process of its own, and the peer beside it where the bot needs it; returns its turns."""
    command = [sys.executable, "-m", "benchmarks.text_bot", "--arm", arm, "--turns", str(turns)]
    command += ["--first-call", str(first_call), "--threads", str(threads)]
    with ExitStack() as stack:
        if arm == "stock":
            command += ["--url", stack.enter_context(PeerServer(model_path(), threads=threads)).url]
        return _read_turns(command, tell)


def _read_turns(command: list[str], tell: Callable[[], None]) -> list[Turn]:
    found: list[Turn] = []
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                found.append(json.loads(line))
                tell()
        except BaseException:
            process.terminate()
            raise
        if process.wait() or not all(turn["first_text_ms"] for turn in found):
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command[2:5])} failed:\n{errors.read()[-2000:]}")
    return found


if __name__ == "__main__":
    sys.exit(main())
