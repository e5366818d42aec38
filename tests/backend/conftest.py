from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from voice_llm.backend.llama import LlamaBackend, LlamaModel

from .support import engine_config


@pytest.fixture(scope="session")
def model(smollm2_path: Path) -> Iterator[LlamaModel]:
    loaded = LlamaModel(smollm2_path, gpu_layers=0)
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def split_backend(model: LlamaModel) -> Iterator[LlamaBackend]:
    created = LlamaBackend(model, engine_config("split"), owns_model=False)
    yield created
    created.close()


@pytest.fixture(scope="session")
def unified_backend(model: LlamaModel) -> Iterator[LlamaBackend]:
    created = LlamaBackend(model, engine_config("unified"), owns_model=False)
    yield created
    created.close()


@pytest.fixture
def backend(split_backend: LlamaBackend) -> LlamaBackend:
    """Split KV, four empty sequences."""
    return _emptied(split_backend)


@pytest.fixture(params=["split", "unified"])
def either_backend(request: pytest.FixtureRequest) -> LlamaBackend:
    """Both KV layouts in turn, four empty sequences each."""
    created = request.getfixturevalue(f"{request.param}_backend")
    assert isinstance(created, LlamaBackend)
    return _emptied(created)


def _emptied(backend: LlamaBackend) -> LlamaBackend:
    for sequence_id in range(backend.info.sequences):
        backend.seq_drop(sequence_id)
    return backend
