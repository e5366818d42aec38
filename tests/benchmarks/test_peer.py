from __future__ import annotations

import os
import shutil
import sys
import urllib.request
from pathlib import Path

import pytest

from benchmarks import peer
from benchmarks.peer import PeerError, PeerServer, build

pytestmark = pytest.mark.unit

_SERVER = """
import http.server, json, sys

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
        self.wfile.write(json.dumps(sys.argv).encode())

port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""


def _program(path: Path, source: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)
    return path


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_that_is_not_built_says_which_command_builds_it(tmp_path: Path) -> None:
    with (
        pytest.raises(PeerError, match="make peer"),
        PeerServer(tmp_path / "model.gguf", threads=1, binary=tmp_path / "llama-server"),
    ):
        pass


def test_a_server_that_dies_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    binary = _program(tmp_path / "llama-server", "import sys; sys.exit('this is no GGUF file')")
    with (
        pytest.raises(PeerError, match=r"status 1:\n.*this is no GGUF file"),
        PeerServer(tmp_path / "model.gguf", threads=1, binary=binary),
    ):
        pass


def test_a_server_runs_for_the_block_and_not_longer_even_where_the_block_fails(tmp_path: Path) -> None:
    binary = _program(tmp_path / "llama-server", _SERVER)
    server = PeerServer(tmp_path / "model.gguf", parallel=3, context_per_call=1000, threads=2, binary=binary)
    pids: list[int] = []

    def measure() -> None:
        with server:
            pids.append(server.pid)
            with urllib.request.urlopen(server.url.replace("/v1", "/health")) as reply:
                assert '"--parallel", "3", "--ctx-size", "3000"' in reply.read().decode()
            assert _is_running(server.pid)
            raise RuntimeError("the measurement failed")

    with pytest.raises(RuntimeError, match="the measurement failed"):
        measure()
    assert not _is_running(pids[0])


@pytest.fixture
def nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(peer, "ROOT", tmp_path)
    monkeypatch.setattr(peer, "_BUILD", tmp_path / "build")
    monkeypatch.setattr(peer, "BINARY", tmp_path / "build" / "bin" / "llama-server")
    monkeypatch.setenv("CXX", "c++")
    return tmp_path


@pytest.mark.parametrize("tool", ["cmake", "c++"])
def test_a_missing_tool_is_named_before_anything_is_downloaded(
    tool: str, nothing_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def which(name: str, path: str | None = None) -> str | None:
        return None if name == tool else name

    monkeypatch.setattr(shutil, "which", which)
    lines: list[str] = []
    with pytest.raises(PeerError, match=rf"'{tool.replace('+', '.')}' is not there.*apt-get install"):
        build(tell=lines.append)
    assert lines == []


def test_a_step_of_the_build_that_fails_shows_the_end_of_its_output(
    nothing_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = nothing_built / "tools"
    tools.mkdir()
    cmake = _program(tools / "cmake", "print('[  1%] Configuring'); raise SystemExit('no such generator')")
    monkeypatch.setattr(shutil, "which", lambda name, path=None: str(cmake))
    (nothing_built / f"llama_cpp_python-{peer._version()}").mkdir()
    lines: list[str] = []
    with pytest.raises(PeerError, match="no such generator"):
        build(tell=lines.append)
    assert lines[0] == "[  1%] Configuring"


def test_a_build_of_this_version_is_used_and_one_of_another_is_built_anew(
    nothing_built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.BINARY.parent.mkdir(parents=True)
    peer.BINARY.touch()
    stamp = nothing_built / "build" / "llama-cpp-python.version"
    stamp.write_text(peer._version())
    assert build(tell=print) == peer.BINARY

    stamp.write_text("0.0.1")
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(PeerError, match="cmake"):
        build(tell=print)
