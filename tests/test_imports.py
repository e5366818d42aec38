"""Imports go one way, and importing the package changes nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

PACKAGE = Path(__file__).resolve().parents[1] / "voice_llm"

# Part -> the parts that it may import, its own apart.
WORDS = {"config", "events", "errors", "observer"}
CORE = WORDS | {"text", "prompt", "backend", "engine"}
RUNTIME = CORE | {"models"}
EDGES = RUNTIME | {"runtime", "session"}
BACKEND_SEAM = {"backend.base", "backend.micro_batches"}
ALLOWED = {
    "errors": set[str](),
    "events": set[str](),
    "observer": {"events"},
    "_proto": set[str](),
    "config": {"events", "errors"},
    "text": WORDS,
    "prompt": WORDS | {"text"},
    "models": WORDS,
    "backend": WORDS | {"text", "prompt"},
    "engine": WORDS | {"text", "prompt"} | BACKEND_SEAM,
    "testing": WORDS | {"text", "prompt", "engine"} | BACKEND_SEAM,
    "runtime": RUNTIME,
    "session": EDGES,
    "remote": EDGES | {"_proto"},
    "servers": EDGES | {"_proto"},
    "pipecat": EDGES | {"remote"},
    "simulator": EDGES | {"remote", "testing", "_proto"},
    "cli": EDGES | {"remote", "servers", "simulator", "testing", "_proto"},
    "__init__": EDGES | {"remote"},
    "__main__": {"cli"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported_names(path: Path) -> Iterator[str]:
    """Absolute names of all that a module imports, at its top and inside functions."""
    package = ("voice_llm", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            yield from (f"{source}.{alias.name}" for alias in node.names)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def covers(rule: str, name: str) -> bool:
    return name == rule or name.startswith(f"{rule}.")


def test_scan_sees_relative_absolute_and_local_imports() -> None:
    names = set(imported_names(PACKAGE / "models" / "resolve.py"))
    assert {"pathlib.Path", "voice_llm.config.profile.ModelSource", "voice_llm.models.hub.hub_file"} <= names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_only_what_its_part_may(path: Path) -> None:
    part = part_of(path)
    assert part in ALLOWED, f"say in {Path(__file__).name} what voice_llm.{part} may import"
    ours = [name.removeprefix("voice_llm.") for name in imported_names(path) if covers("voice_llm", name)]
    rules = ALLOWED[part] | {part}
    assert [name for name in ours if not any(covers(rule, name) for rule in rules)] == []


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("llama_cpp", "backend/llama/library.py"),
        ("pipecat", "pipecat/"),
        ("typer", "cli/"),
        ("prometheus_client", "servers/"),
        ("aiohttp.web", "servers/"),
        ("huggingface_hub", "models/hub.py"),
    ],
)
def test_library_is_imported_in_one_place_only(library: str, home: str) -> None:
    users = [
        str(path.relative_to(PACKAGE))
        for path in modules()
        if any(covers(library, name) for name in imported_names(path))
    ]
    assert [user for user in users if not user.startswith(home)] == []


@pytest.mark.parametrize("library", ["asyncio", "threading", "time", "llama_cpp", "ctypes"])
def test_core_is_free_of_clocks_threads_and_devices(library: str) -> None:
    core = [path for path in modules() if part_of(path) in {"engine", "text"}]
    users = [path.name for path in core if any(covers(library, name) for name in imported_names(path))]
    assert users == []


def test_importing_the_package_changes_nothing_process_wide() -> None:
    """No log handlers or levels, no environment, no threads, no llama.cpp and no hub client."""
    names = [
        ".".join(("voice_llm", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in modules()
        if part_of(path) in {"errors", "events", "config", "text", "prompt", "engine", "testing", "models", "__init__"}
    ]
    script = f"""
import importlib, logging, os, signal, sys, threading
environment, hook = dict(os.environ), sys.excepthook
interrupt = signal.getsignal(signal.SIGINT)
for name in {names!r}:
    importlib.import_module(name)
root = logging.getLogger()
assert root.handlers == [] and root.level == logging.WARNING, root.handlers
loggers = [logging.getLogger(n) for n in logging.root.manager.loggerDict if n.startswith("voice_llm")]
assert all(isinstance(h, logging.NullHandler) for logger in loggers for h in logger.handlers)
assert dict(os.environ) == environment
assert threading.active_count() == 1 and sys.excepthook is hook
assert signal.getsignal(signal.SIGINT) is interrupt
loaded = {{"llama_cpp", "huggingface_hub", "pipecat"}} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
