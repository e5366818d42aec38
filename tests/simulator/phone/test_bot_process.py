from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from voice_llm.simulator.phone import BotProcess, BotProcessError

pytestmark = pytest.mark.unit

SCRIPT = Path(__file__).with_name("fake_bot_script.py")
ROOT = Path(__file__).resolve().parents[3]


def bot(tmp_path: Path, *arguments: str, ready_timeout_s: float = 30.0, script: Path = SCRIPT) -> BotProcess:
    return BotProcess(
        script,
        output_path=tmp_path / "bot.log",
        call_log_path=tmp_path / "calls.jsonl",
        arguments=arguments,
        environment={"PYTHONPATH": str(ROOT)},
        ready_timeout_s=ready_timeout_s,
    )


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_bot_takes_calls_inside_and_is_ended_after(tmp_path: Path) -> None:
    async with bot(tmp_path) as running:
        pid = running.pid
        assert pid is not None
        assert runs(pid)
        running.check()
        host, port = running.url.removeprefix("ws://").removesuffix("/ws").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
    assert not runs(pid)


async def test_bot_is_ended_also_where_the_body_fails_or_is_cancelled(tmp_path: Path) -> None:
    pids: list[int | None] = []

    async def use(error: BaseException) -> None:
        async with bot(tmp_path) as running:
            pids.append(running.pid)
            raise error

    for error in (RuntimeError("x"), asyncio.CancelledError(), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            await use(error)
    assert not any(pid is None or runs(pid) for pid in pids)
    assert len(pids) == 3


async def test_bot_that_dies_at_once_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(BotProcessError, match=r"ended by itself with status 1(.|\n)*the model file is missing"):
        async with bot(tmp_path, "--die"):
            pass


async def test_bot_that_never_takes_calls_is_given_up_and_ended(tmp_path: Path) -> None:
    hanging = bot(tmp_path, "--hang", ready_timeout_s=0.5)
    with pytest.raises(BotProcessError, match=r"did not take calls within 0\.5 s"):
        await hanging.__aenter__()
    assert hanging.pid is None


async def test_bot_that_dies_later_is_noticed(tmp_path: Path) -> None:
    async with bot(tmp_path) as running:
        assert running.pid is not None
        os.kill(running.pid, 9)
        await asyncio.to_thread(os.waitid, os.P_PID, running.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(BotProcessError, match="status -9"):
            running.check()


async def test_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BotProcessError, match=r"none\.py"):
        async with bot(tmp_path, script=tmp_path / "none.py"):
            pass
