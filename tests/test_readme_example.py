"""The README's Python example runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pipecat.processors.frame_processor import FrameProcessor

from benchmarks.tables import README
from tests.runtime.helpers import running
from voice_llm.pipecat import VoiceLLMService

pytestmark = pytest.mark.model


def examples() -> dict[str, str]:
    """The README's Python blocks, by their first line."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    return {block.partition("\n")[0]: block for block in blocks}


async def test_the_pipecat_example_is_a_pipeline() -> None:
    example = examples()["from pipecat.pipeline.pipeline import Pipeline"]
    names: dict[str, Any] = {}
    exec(example, names)
    transport = SimpleNamespace(input=FrameProcessor, output=FrameProcessor)
    async with running() as engine:
        pipeline = names["pipeline_of_a_call"](engine, transport, FrameProcessor(), FrameProcessor())
        [llm] = [part for part in pipeline.processors if isinstance(part, VoiceLLMService)]
    assert isinstance(llm.settings, VoiceLLMService.Settings)
    assert llm.settings.rag_context == "We open at eight."


def test_the_example_speaks(tmp_path: Path) -> None:
    """On a machine where nothing has been measured yet, so this also runs the choice of threads and KV layout."""
    example = examples()["import asyncio"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "LLM_LLAMA_SERVICE_LOG_LEVEL": "error"}
    done = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 3
    assert (tmp_path / "voice_llm" / "tuning.json").is_file()
