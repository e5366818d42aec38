"""Files from the hub: fetched once, checked, and errors that say how to go on. A local stand-in plays the hub."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.models.test_gguf_file import write_gguf

pytestmark = pytest.mark.unit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubStandIn(ThreadingHTTPServer):
    """Serves one file as ``owner/model``, as the hub does."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: HubStandIn

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        self.server.requests += 1
        repository = self.path.partition("/resolve/")[0]
        known = self.path in (f"/owner/model/resolve/{version}/model.gguf" for version in ("main", COMMIT))
        self.send_response(200 if known else 403 if repository == "/owner/closed" else 404)
        if not known and repository != "/owner/closed":
            self.send_header("X-Error-Code", "EntryNotFound" if repository == "/owner/model" else "RepoNotFound")
        body = self.server.content if known else b""
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(self.server.content).hexdigest()}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubStandIn]:
    server = HubStandIn(write_gguf(tmp_path / "served.gguf"))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def resolve(home: Path, endpoint: str, *, offline: bool = False, source: dict[str, str] | None = None) -> str:
    """Resolve in a process of its own, since the hub client reads its environment once; returns what it printed."""
    script = (
        "import sys\n"
        "from voice_llm.config import ModelSource\n"
        "from voice_llm.errors import ModelFileError\n"
        "from voice_llm.models import resolve_model\n"
        "source = ModelSource(**dict(argument.split('=', 1) for argument in sys.argv[1:]))\n"
        "try: print(resolve_model(source, progress=print))\n"
        "except ModelFileError as error: print('refused:', error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": str(int(offline))}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
    arguments = [
        f"{name}={value}" for name, value in ({"repo": "owner/model", "file": "model.gguf"} | (source or {})).items()
    ]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_file_is_fetched_once_and_then_found_without_asking_the_hub(hub: HubStandIn, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(hub.content).hexdigest()
    first = resolve(tmp_path / "home", hub.url, source={"sha256": sha256})
    assert first.startswith("looking for model.gguf of owner/model")
    path = Path(first.splitlines()[-1])
    assert path.read_bytes() == hub.content
    assert path.is_relative_to(tmp_path / "home")
    requests = hub.requests
    for offline in (True, False):
        assert resolve(tmp_path / "home", hub.url, offline=offline).splitlines()[-1] == str(path)
    assert hub.requests == requests


def test_wrong_checksum_is_refused_with_both(hub: HubStandIn, tmp_path: Path) -> None:
    answer = resolve(tmp_path / "home", hub.url, source={"sha256": "0" * 64})
    assert "refused:" in answer
    assert "0" * 64 in answer
    assert hashlib.sha256(hub.content).hexdigest() in answer


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({"file": "other.gguf"}, "the hub repository owner/model has no file other.gguf"),
        ({"repo": "owner/other"}, "the hub has no repository owner/other"),
        ({"repo": "a/b/c"}, "'a/b/c' is not a hub repository's name, which is owner/name"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    hub: HubStandIn, tmp_path: Path, source: dict[str, str], reason: str
) -> None:
    assert f"refused: {reason}" in resolve(tmp_path / "home", hub.url, source=source)


def test_offline_error_says_what_to_place_where(tmp_path: Path) -> None:
    answer = resolve(tmp_path / "home", "http://127.0.0.1:9", offline=True)
    assert "refused: model.gguf of owner/model is not in the local cache, and HF_HUB_OFFLINE forbids" in answer
    assert str(tmp_path / "home" / "hub") in answer
    assert "--model" in answer


def test_other_failure_is_told_with_the_hubs_address(hub: HubStandIn, tmp_path: Path) -> None:
    answer = resolve(tmp_path / "home", hub.url, source={"repo": "owner/closed"})
    assert f"refused: model.gguf of owner/closed could not be fetched from {hub.url}" in answer
