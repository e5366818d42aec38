"""A command line apart from this machine: no environment, no ``.env``, a fake engine where one is needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from voice_llm.config import Profile
from voice_llm.runtime import Engine
from voice_llm.testing import FakeBackend


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Neither variables nor files of this machine count, and what a command sets for its process is undone."""
    for name in list(os.environ):
        if name.upper().startswith("LLM_LLAMA_SERVICE_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("voice_llm.cli.app.let_threads_spin", lambda: None)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    native = logging.getLogger("voice_llm.llama_cpp")
    level = native.level
    yield
    native.setLevel(level)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeBackend], dict[str, Any]]:
    """Let commands load this backend; returns what they ask of ``Engine.load``, once they have."""

    def use(backend: FakeBackend) -> dict[str, Any]:
        asked: dict[str, Any] = {}

        async def load(profile: Profile, **options: Any) -> Engine:
            asked.update(options, profile=profile)
            return await Engine.start(backend, profile)

        monkeypatch.setattr("voice_llm.cli.options.Engine.load", load)
        return asked

    return use
