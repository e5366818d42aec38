"""Tests of the configuration are apart from this machine: no variables, no ``.env``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("LLM_LLAMA_SERVICE_") or name in ("ENV", "GRPC_TLS_CA_PATH"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
