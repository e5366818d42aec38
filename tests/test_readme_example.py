"""The README's Python example runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tables import README

pytestmark = pytest.mark.model


def test_the_example_speaks(tmp_path: Path) -> None:
    """On a machine where nothing has been measured yet, so this also runs the choice of threads and KV layout."""
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
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
