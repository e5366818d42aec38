"""Pipecat's own eval runner against our bots, in text, on the real model."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from voice_llm.simulator.phone import BotProcess

pytestmark = pytest.mark.model

_HERE = Path(__file__).resolve().parent
_PIPELINES = _HERE.parents[1] / "pipelines"


@pytest.mark.parametrize(
    ("script", "scenarios", "count"),
    [
        (_PIPELINES / "phone_assistant.py", "phone_assistant.yaml", 3),
        (_PIPELINES / "text_assistant.py", "text_assistant.yaml", 1),
        (_HERE / "tool_bot.py", "tool_bot.yaml", 1),
    ],
    ids=["phone assistant", "text assistant", "tool bot"],
)
async def test_the_bot_passes_its_scenarios(script: Path, scenarios: str, count: int, tmp_path: Path) -> None:
    environment = {
        "LLM_LLAMA_SERVICE_THREADS": "1",
        "VOICE_LLM_PIPER_THREADS": "1",
        "VOICE_LLM_GREETING": "",
        "VOICE_LLM_TEMPERATURE": "0",
    }
    async with BotProcess(script, output_path=tmp_path / "bot.log", environment=environment) as bot:
        status, output = await _evaluate(_HERE / "evals" / scenarios, bot.url, tmp_path)
    assert status == 0, output + (tmp_path / "bot.log").read_text()[-4000:]
    assert output.count("✓") >= count or f"{count} passed" in output, output


async def _evaluate(scenarios: Path, url: str, logs: Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "pipecat.evals",
            "run",
            str(scenarios),
            "--bot-url",
            url,
            "-v",
            "--logs-dir",
            str(logs),
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "160"},
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode(errors="replace")
