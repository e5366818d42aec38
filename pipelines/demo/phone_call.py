"""A phone call with sound on this machine: starts the bot, calls it, and shows what was said and how long it took.

The caller's voice is synthesised before the call. Recording, picture and figures are written to ``demo-out/``.

Run it with ``make demo``, or::

    python pipelines/demo/phone_call.py --help
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from voice_llm.errors import VoiceLLMError
from voice_llm.simulator.phone import (
    BotProcess,
    Line,
    Manners,
    PhoneCall,
    PhoneCaller,
    PhoneCallError,
    PiperCallerVoice,
    SpokenLine,
    draw_timeline,
    join_call_log,
    latency_table,
    read_call_log,
    speak_lines,
    transcript_table,
)

HERE = Path(__file__).resolve().parent
SAY = (
    "Hello. Which kinds of damage does my home policy cover?",
    "Sorry, wait a moment. What is the deductible for water damage?",
    "Thank you. And when is the phone desk open?",
)
# How long the bot may take after the caller has hung up to write the end of its log.
LOG_END_S = 3.0
# What comes after the call: that, ending the bot, writing and drawing.
WRAP_UP_S = 15.0
MANNERS = Manners(pause_s=1.0, max_call_s=150)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Place a phone call with sound to a bot on this machine.")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--bot", type=Path, default=HERE.parent / "phone_assistant.py", metavar="SCRIPT",
                        help="the bot, a script of Pipecat's runner; default: phone_assistant.py")  # fmt: skip
    parser.add_argument("--say", action="append", metavar="TEXT", help="a line of the caller; once for each turn")
    parser.add_argument("--barge-in-turn", type=int, default=2, metavar="N",
                        help="said over the reply before it; 0 for none; default: %(default)s")  # fmt: skip
    parser.add_argument("--barge-in-after", type=float, default=1.0, metavar="SECONDS",
                        help="that long after the reply is first heard; default: %(default)s")  # fmt: skip
    parser.add_argument("--no-greeting", action="store_true", help="the caller speaks first")
    parser.add_argument("--voice", type=Path, metavar="FILE", help="a Piper voice (.onnx) for the caller")
    parser.add_argument("--reply-timeout", type=float, default=MANNERS.reply_timeout_s, metavar="SECONDS",
                        help="how long the caller waits for a reply; default: %(default)s")  # fmt: skip
    parser.add_argument("--time-limit", type=float, default=175.0, metavar="SECONDS",
                        help="for all of it; default: %(default)s")  # fmt: skip
    parser.add_argument("bot_arguments", nargs="*", metavar="-- ARGUMENT", help="passed on to the bot")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the demo.

    Returns:
        The exit status: 1 where something failed, after saying what.
    """
    arguments = parse_arguments(argv)
    console = Console()
    try:
        return hold(arguments, console)
    except TimeoutError:
        failure, status = f"The call was not over within {arguments.time_limit:g} s.", 1
    except (VoiceLLMError, OSError) as error:
        failure, status = f"The demo failed: {error}", 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        failure, status = "Stopped; the bot has been ended.", 130
    console.print(failure, style="red", markup=False)
    return status


def hold(arguments: argparse.Namespace, console: Console) -> int:
    """Hold the call and show it; one that failed is shown as far as it went."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    call_log_path(arguments.out).write_text("", encoding="utf-8")
    failure: PhoneCallError | None = None
    try:
        call = asyncio.run(run(arguments, console))
    except PhoneCallError as error:
        if error.call is None:
            raise
        call, failure = error.call, error
    write(with_call_log(call, arguments.out), arguments.out, console)
    if 0 < arguments.barge_in_turn <= len(call.turns) and not call.turns[arguments.barge_in_turn - 1].barge_in:
        console.print("There was no barge-in: the reply was over before the caller could interrupt it.", style="yellow")
    if failure is not None:
        console.print(f"The call failed: {failure}", style="red", markup=False)
    return 0 if failure is None else 1


async def run(arguments: argparse.Namespace, console: Console) -> PhoneCall:
    """Start the bot, call it, and end it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    out: Path = arguments.out
    end_s = time.monotonic() + arguments.time_limit
    async with asyncio.timeout(arguments.time_limit):
        with console.status("Synthesising the caller's voice") as status:
            voice = await asyncio.to_thread(PiperCallerVoice, arguments.voice)
            lines = await asyncio.to_thread(speak_lines, script(arguments), voice)
            bot = BotProcess(
                arguments.bot,
                output_path=out / "bot.log",
                call_log_path=call_log_path(out),
                arguments=arguments.bot_arguments,
                on_wait=lambda waited_s: status.update(f"Starting the bot, its models load ({waited_s:.0f} s)"),
            )
            async with bot:
                status.update("Calling; waiting for the greeting")
                # A call that takes too long is ended in time to be written down.
                max_call_s = min(MANNERS.max_call_s, max(1.0, end_s - time.monotonic() - WRAP_UP_S))
                call = await place_call(bot, lines, arguments, max_call_s, lambda text: status.update(text))
                await wait_for_log_end(out, call.call_id)
    return call


def script(arguments: argparse.Namespace) -> list[Line]:
    """Return what the caller is going to say."""
    return [
        Line(
            text=text,
            pause_s=MANNERS.pause_s,
            barge_in_after_s=arguments.barge_in_after if turn == arguments.barge_in_turn else None,
        )
        for turn, text in enumerate(arguments.say or SAY, 1)
    ]


async def place_call(
    bot: BotProcess,
    lines: tuple[SpokenLine, ...],
    arguments: argparse.Namespace,
    max_call_s: float,
    show: Callable[[str], None],
) -> PhoneCall:
    """Hold the call; where it fails because the bot died, that is the error."""
    manners = dataclasses.replace(
        MANNERS,
        wait_for_greeting=not arguments.no_greeting,
        reply_timeout_s=arguments.reply_timeout,
        max_call_s=max_call_s,
    )
    caller = PhoneCaller(
        bot.url, lines, manners=manners, on_turn=lambda turn: show(f"On the phone: turn {turn + 1} of {len(lines)}")
    )
    try:
        return await caller.call()
    except PhoneCallError as error:
        try:
            bot.check()
        except PhoneCallError as death:
            death.call = error.call
            raise death from error
        raise


def call_log_path(out: Path) -> Path:
    """Where the bot writes what happens in its calls."""
    return out / "call-log.jsonl"


async def wait_for_log_end(out: Path, call_id: str) -> None:
    """Wait until the bot has noticed that the caller has hung up, for it writes down what it said last."""
    for _ in range(round(LOG_END_S / 0.1)):
        if any(event.call_id == call_id and event.name == "call_ended" for event in read_call_log(call_log_path(out))):
            return
        await asyncio.sleep(0.1)


def with_call_log(call: PhoneCall, out: Path) -> PhoneCall:
    """Add what the bot's log tells about the call."""
    return join_call_log(call, read_call_log(call_log_path(out)))


def write(call: PhoneCall, out: Path, console: Console) -> None:
    """Print the transcript and the latencies; write the recording, the picture and the figures."""
    console.print(transcript_table(call))
    console.print()
    console.print(latency_table(call))
    call.recording.write_wav(out / "call.wav")
    (out / "call.json").write_text(json.dumps(call.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draw_timeline(call, out / "call.png")
    console.print(f"\nWritten to {out}: call.wav (caller left, bot right), call.png, call.json", markup=False)


if __name__ == "__main__":
    sys.exit(main())
