"""The examples of docs/serving.md run as they stand, against a server of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.server_process import ServerProcess

pytestmark = pytest.mark.model

DOCS = Path(__file__).parent.parent / "docs" / "serving.md"


def example(first_line: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    [found] = [block for block in blocks if block.startswith(first_line)]
    return str(found)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    flags = ["--calls", "4", "--context-per-call", "1024", "--threads", "1"]
    with ServerProcess(flags, tmp_path_factory.mktemp("serve") / "log") as process:
        process.wait_healthy()
        yield process


def run(code: str, server: ServerProcess) -> str:
    """Run an example with the server's own ports in it."""
    ports = {"16070": server.http, "16071": server.grpc, "16073": server.ws}
    for port, address in ports.items():
        code = code.replace(f"127.0.0.1:{port}", address)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_call_over_websocket(server: ServerProcess) -> None:
    said = run(example("import asyncio"), server)
    assert "'type': 'chunk', 'turn_id': 't1', 'index': 0" in said


def test_the_openai_client(server: ServerProcess) -> None:
    said = run(example("from openai"), server).split()
    assert len(said) > 2
    assert said[-1].isdecimal(), "how many tokens were cached"


def test_a_remote_engine(server: ServerProcess) -> None:
    body = example("from voice_llm").partition("\n\n")[2].partition("#")[0].strip()
    code = f"""
import asyncio
from voice_llm import RemoteEngine

async def main():
    {body}
    async with engine, engine.open_call() as call:
        async for event in call.generate([{{"role": "user", "content": "Hello?"}}]):
            print(event)

asyncio.run(main())
"""
    assert "Finished" in run(code, server)


def test_each_page_that_is_named_exists() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", DOCS.read_text())
    assert targets
    for target in targets:
        assert (DOCS.parent / target).is_file(), target
