"""The phone bot under real calls: garbage, two callers at once, and one who hangs up in the middle of a reply."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
import websockets

from voice_llm.simulator.phone import (
    BotProcess,
    Line,
    Manners,
    PhoneCaller,
    PiperCallerVoice,
    SpokenLine,
    read_call_log,
    speak_lines,
)

pytestmark = pytest.mark.model

_PIPELINES: Final = Path(__file__).resolve().parents[2] / "pipelines"
_PATIENT: Final = Manners(reply_timeout_s=60, dropped_reply_timeout_s=20, max_call_s=150)
_START: Final = {"event": "start", "streamSid": "MZ1", "start": {"streamSid": "MZ1", "callSid": "CA1"}}


@pytest.fixture(scope="module")
def question() -> tuple[SpokenLine, ...]:
    return speak_lines([Line(text="What is the deductible for water damage?")], PiperCallerVoice())


@pytest_asyncio.fixture
async def bot(tmp_path: Path) -> AsyncIterator[BotProcess]:
    environment = {
        "LLM_LLAMA_SERVICE_THREADS": "1",
        "VOICE_LLM_PIPER_THREADS": "1",
        "VOICE_LLM_TEMPERATURE": "0",
        "VOICE_LLM_GREETING": "Good day, how can I help you?",
    }
    async with BotProcess(
        _PIPELINES / "phone_assistant.py",
        output_path=tmp_path / "bot.log",
        call_log_path=tmp_path / "calls.jsonl",
        environment=environment,
    ) as bot:
        yield bot


def events(tmp_path: Path, kind: str) -> list[Any]:
    log = tmp_path / "calls.jsonl"
    return [event for event in read_call_log(log) if event.name == kind] if log.exists() else []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(100):
        while not condition():
            await asyncio.sleep(0.05)


async def test_after_garbage_on_the_socket_the_next_caller_is_answered(
    bot: BotProcess, question: tuple[SpokenLine, ...], tmp_path: Path
) -> None:
    await _send(bot.url, "this is no JSON")
    await _send(bot.url, json.dumps({"event": "nonsense"}))
    await _send(bot.url, json.dumps({"event": "connected"}), json.dumps(_START), b"\x00\xff", "{", "[]", "null")
    media = {"event": "media", "streamSid": "MZ1", "media": {"payload": "%%% not base64 %%%"}}
    await _send(bot.url, json.dumps({"event": "connected"}), json.dumps(_START), json.dumps(media), json.dumps({}))

    call = await PhoneCaller(bot.url, question, manners=_PATIENT).call()

    bot.check()
    assert call.turns[0].reply_start_s is not None
    assert any("fifty" in event.text for event in events(tmp_path, "bot_said"))


async def test_a_caller_who_hangs_up_in_a_reply_ends_that_call_alone(
    bot: BotProcess, question: tuple[SpokenLine, ...], tmp_path: Path
) -> None:
    leaver = PhoneCaller(bot.url, question, manners=_PATIENT, call_sid="CAleaver")
    stayer = PhoneCaller(bot.url, question, manners=_PATIENT, call_sid="CAstayer")
    leaving, staying = asyncio.create_task(leaver.call()), asyncio.create_task(stayer.call())

    await until(lambda: any(e.call_id == "CAleaver" for e in events(tmp_path, "first_token")))
    leaving.cancel()
    call = await staying
    await asyncio.gather(leaving, return_exceptions=True)

    assert call.turns[0].reply_start_s is not None
    assert any(e.call_id == "CAstayer" and "fifty" in e.text for e in events(tmp_path, "bot_said"))
    await until(lambda: {e.call_id for e in events(tmp_path, "call_ended")} == {"CAleaver", "CAstayer"})


async def test_the_demo_is_a_conversation(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(_PIPELINES / "demo" / "phone_call.py"), "--out", str(tmp_path)),
        *("--reply-timeout", "60", "--time-limit", "240"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()

    turns = json.loads((tmp_path / "call.json").read_text())["turns"]
    assert len(turns) == 3
    assert all(turn["reply_start_s"] > turn["speech_end_s"] for turn in turns)
    assert [turn["barge_in"] for turn in turns] == [False, True, False]
    # On a machine that runs the tests; how soon it is silent on a quiet one, `make acceptance` says.
    assert turns[1]["stop_ms"] < 1500
    for name in ("call.wav", "call.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    caller_words = "deductible"
    assert caller_words not in (tmp_path / "bot.log").read_text()


async def _send(url: str, *messages: str | bytes) -> None:
    """Say all that and hang up; the bot may have hung up before."""
    async with websockets.connect(url) as socket:
        try:
            for message in messages:
                await socket.send(message)
            await asyncio.wait_for(socket.wait_closed(), 0.5)
        except (TimeoutError, websockets.ConnectionClosed):
            pass
