"""The peer: llama.cpp's own server, built from the very sources that llama-cpp-python was built from.

``make peer`` downloads llama-cpp-python's sdist and builds ``llama-server`` into ``.peer/``: about eight minutes on two
cores, once. ``PeerServer`` runs it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from rich.console import Console
from rich.markup import escape

ROOT: Final = Path(__file__).parent.parent / ".peer"
_BUILD: Final = ROOT / "build"
BINARY: Final = _BUILD / "bin" / "llama-server"

# What llama-cpp-python's own build sets; what only the server would add is left out: TLS, web page, downloads.
_CMAKE_OPTIONS: Final = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    *(
        f"-DLLAMA_{option}=OFF"
        for option in (
            "BUILD_TESTS",
            "BUILD_EXAMPLES",
            "BUILD_APP",
            "BUILD_UI",
            "USE_PREBUILT_UI",
            "CURL",
            "OPENSSL",
        )
    ),
)
_LOADING_S: Final = 60.0
_ENDING_S: Final = 5.0


class PeerError(Exception):
    """The peer cannot be built or run; the message says why, and what to do."""


def main() -> int:
    """Build the peer; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make peer", description=__doc__)
    parser.add_argument("command", choices=["build"])
    parser.parse_args()
    console = Console()
    try:
        with console.status("llama-server") as status:
            build(tell=lambda line: status.update(f"llama-server: {escape(line)}"))
    except PeerError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        return 1
    console.print(f"{BINARY.name} of llama-cpp-python {_version()} is built.", highlight=False)
    return 0


def build(*, tell: Callable[[str], None]) -> Path:
    """Build the server unless it is there for the installed llama-cpp-python; returns its path.

    Args:
        tell: Called with a line of progress, often.

    Raises:
        PeerError: A tool is missing, or a step failed.
    """
    stamp = _BUILD / "llama-cpp-python.version"
    if BINARY.exists() and stamp.exists() and stamp.read_text().strip() == _version():
        return BINARY
    cmake = _tool("cmake", "pip install cmake, or Debian, Ubuntu: apt-get install cmake")
    _tool(os.environ.get("CXX", "c++"), "Debian, Ubuntu: apt-get install build-essential. Fedora: dnf install gcc-c++")
    sources = _sources(tell)
    # A build folder belongs to one source folder.
    shutil.rmtree(_BUILD, ignore_errors=True)
    _step([cmake, "-S", str(sources), "-B", str(_BUILD), *_CMAKE_OPTIONS], tell)
    _step([cmake, "--build", str(_BUILD), "--target", BINARY.name, "--parallel", str(os.cpu_count() or 1)], tell)
    stamp.write_text(_version() + "\n")
    return BINARY


def _sources(tell: Callable[[str], None]) -> Path:
    """Download and unpack the sdist of the installed version, unless it is there; returns llama.cpp's folder."""
    folder = ROOT / f"llama_cpp_python-{_version()}"
    if not folder.exists():
        ROOT.mkdir(exist_ok=True)
        tell("downloading the sources")
        options = ["--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(ROOT)]
        _step([sys.executable, "-m", "pip", "download", f"llama-cpp-python=={_version()}", *options], tell)
        tell("unpacking the sources")
        with tempfile.TemporaryDirectory(dir=ROOT) as unpacked, tarfile.open(f"{folder}.tar.gz") as archive:
            archive.extractall(unpacked, filter="data")
            # A folder of the final name is whole, whatever happened before.
            (Path(unpacked) / folder.name).rename(folder)
    return folder / "vendor" / "llama.cpp"


def _step(command: list[str], tell: Callable[[str], None]) -> None:
    """Run a command; its output is progress, and its last lines are the error."""
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                tell(line.rstrip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise PeerError("\n".join([f"{' '.join(command[:4])} ... failed:", *lines[-12:]]))


def _tool(name: str, advice: str) -> str:
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        raise PeerError(f"'{name}' is not there; it is needed to build llama.cpp's server. {advice}")
    return path


def _version() -> str:
    return importlib.metadata.version("llama-cpp-python")


class PeerServer:
    """llama.cpp's server on a free port of this machine, for as long as the block lasts.

    Prompt cache, continuous batching, warm-up and the model's own chat template are its defaults, and on.

    Args:
        model: GGUF file.
        parallel: Slots, each for one call.
        context_per_call: Tokens a slot holds.
        threads: For steps and prompts.
        options: More flags.
        environment: Of the server; None for this process's own.
        binary: The server.

    Example:
        >>> with PeerServer(path, threads=2) as peer:
        ...     ask(peer.url)

    Raises:
        PeerError: On entry: the binary is missing, or the server died or was not ready in time.
    """

    def __init__(
        self,
        model: Path,
        *,
        parallel: int = 1,
        context_per_call: int = 8192,
        threads: int,
        options: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        binary: Path = BINARY,
    ) -> None:
        self._binary = binary
        self._port = 0
        self._options = [
            *("--model", str(model), "--parallel", str(parallel), "--ctx-size", str(parallel * context_per_call)),
            *("--threads", str(threads), "--threads-batch", str(threads), "--jinja", *options),
        ]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """Base URL of its OpenAI API."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        if not self._binary.exists():
            raise PeerError(f"llama.cpp's server is not built ({self._binary.name} is missing): run `make peer` first")
        self._port = _free_port()
        self._log = tempfile.TemporaryFile()  # open for as long as the server runs
        command = [str(self._binary), *self._options, "--host", "127.0.0.1", "--port", str(self._port)]
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self._environment
        )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + _LOADING_S
        while not self._is_healthy():
            if process.poll() is not None:
                raise PeerError(f"llama.cpp's server ended with status {process.returncode}:\n{self._last_lines()}")
            if time.monotonic() > deadline_s:
                raise PeerError(f"llama.cpp's server was not ready in {_LOADING_S:.0f} s:\n{self._last_lines()}")
            time.sleep(0.05)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=1.0) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _last_lines(self) -> str:
        assert self._log is not None
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-12:])

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(_ENDING_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()


def clean_up_on_sigterm() -> None:
    """Let a polite kill of this process unwind it as an interrupt does, so that no server is left behind."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
